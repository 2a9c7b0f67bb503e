"""Everyday facts as tables ("subject = answer", separated by semicolons)."""

from __future__ import annotations


def _table(text: str) -> dict[str, str]:
    rows = (row.split("=") for row in text.replace("\n", " ").split(";") if row.strip())
    return {left.strip(): right.strip() for left, right in rows}


CAPITALS = _table(
    """France=Paris; Germany=Berlin; Italy=Rome; Spain=Madrid; Portugal=Lisbon; England=London; Ireland=Dublin;
    Scotland=Edinburgh; Norway=Oslo; Sweden=Stockholm; Finland=Helsinki; Denmark=Copenhagen; Iceland=Reykjavik;
    Poland=Warsaw; Austria=Vienna; Switzerland=Bern; Belgium=Brussels; the Netherlands=Amsterdam; Greece=Athens;
    Turkey=Ankara; Hungary=Budapest; Romania=Bucharest; Bulgaria=Sofia; Croatia=Zagreb; Serbia=Belgrade;
    Ukraine=Kyiv; Russia=Moscow; Japan=Tokyo; China=Beijing; India=New Delhi; South Korea=Seoul;
    Thailand=Bangkok; Vietnam=Hanoi; Indonesia=Jakarta; the Philippines=Manila; Nepal=Kathmandu;
    Pakistan=Islamabad; Iran=Tehran; Iraq=Baghdad; Saudi Arabia=Riyadh; Lebanon=Beirut; Egypt=Cairo;
    Morocco=Rabat; Tunisia=Tunis; Nigeria=Abuja; Kenya=Nairobi; Ethiopia=Addis Ababa; Ghana=Accra;
    Senegal=Dakar; Canada=Ottawa; the United States=Washington; Mexico=Mexico City; Cuba=Havana;
    Brazil=Brasilia; Argentina=Buenos Aires; Chile=Santiago; Peru=Lima; Colombia=Bogota; Ecuador=Quito;
    Australia=Canberra; New Zealand=Wellington; the Czech Republic=Prague; Slovakia=Bratislava; Estonia=Tallinn"""
)
_CONTINENTS = {
    "Europe": """France; Germany; Italy; Spain; Portugal; England; Ireland; Scotland; Norway; Sweden; Finland; Denmark;
    Iceland; Poland; Austria; Switzerland; Belgium; the Netherlands; Greece; Hungary; Romania; Bulgaria; Croatia;
    Serbia; Ukraine; the Czech Republic""",
    "Asia": """Japan; China; India; South Korea; Thailand; Vietnam; Indonesia; the Philippines; Nepal; Pakistan; Iran;
    Iraq; Saudi Arabia""",
    "Africa": "Egypt; Morocco; Tunisia; Nigeria; Kenya; Ethiopia; Ghana; Senegal",
    "North America": "Canada; the United States; Mexico; Cuba",
    "South America": "Brazil; Argentina; Chile; Peru; Colombia; Ecuador",
}
CONTINENTS = {country.strip(): name for name, rows in _CONTINENTS.items() for country in rows.split(";")}
LANGUAGES = _table(
    """France=French; Germany=German; Italy=Italian; Spain=Spanish; Portugal=Portuguese; England=English;
    Norway=Norwegian; Sweden=Swedish; Finland=Finnish; Denmark=Danish; Poland=Polish; Austria=German;
    the Netherlands=Dutch; Greece=Greek; Turkey=Turkish; Hungary=Hungarian; Russia=Russian; Ukraine=Ukrainian;
    Japan=Japanese; China=Chinese; South Korea=Korean; Thailand=Thai; Vietnam=Vietnamese; Egypt=Arabic;
    Iraq=Arabic; the United States=English; Mexico=Spanish; Cuba=Spanish; Brazil=Portuguese; Argentina=Spanish;
    Australia=English"""
)
COLOURS = _table(
    """a banana=yellow; grass=green; snow=white; the sky=blue; blood=red; coal=black; a carrot=orange;
    a lemon=yellow; a tomato=red; a strawberry=red; milk=white; chocolate=brown; the sun=yellow; a leaf=green;
    a frog=green; an orange=orange; a cherry=red; the sea=blue; a crow=black; a swan=white; a polar bear=white;
    a flamingo=pink; a pig=pink; a cucumber=green; salt=white; sugar=white; a pumpkin=orange; an elephant=grey;
    a ruby=red; an emerald=green; a sapphire=blue; cotton=white; a fire truck=red; wood=brown;
    an eggplant=purple; spinach=green; honey=golden; a raven=black; coffee=brown; a chick=yellow"""
)
OPPOSITES = _table(
    """hot=cold; big=small; tall=short; fast=slow; happy=sad; light=dark; old=young; rich=poor; hard=soft;
    full=empty; up=down; left=right; day=night; black=white; open=closed; wet=dry; clean=dirty; strong=weak;
    good=bad; early=late; near=far; high=low; loud=quiet; thick=thin; heavy=light; deep=shallow; wide=narrow;
    sweet=sour; easy=difficult; first=last; true=false; yes=no; win=lose; buy=sell; love=hate; begin=end;
    inside=outside; above=below; before=after; always=never; hello=goodbye; brave=afraid; awake=asleep;
    sharp=blunt; smooth=rough; safe=dangerous; summer=winter; push=pull; give=take; north=south; east=west;
    front=back; more=less; come=go; laugh=cry; remember=forget; beautiful=ugly; cheap=expensive; alive=dead;
    noisy=silent"""
)
PLURALS = _table(
    """mouse=mice; child=children; man=men; woman=women; foot=feet; tooth=teeth; goose=geese; person=people;
    ox=oxen; sheep=sheep; fish=fish; deer=deer; leaf=leaves; wolf=wolves; knife=knives; wife=wives; life=lives;
    half=halves; loaf=loaves; shelf=shelves; thief=thieves; city=cities; baby=babies; lady=ladies;
    party=parties; story=stories; berry=berries; puppy=puppies; box=boxes; bus=buses; dish=dishes;
    watch=watches; fox=foxes; glass=glasses; church=churches; brush=brushes; potato=potatoes; tomato=tomatoes;
    hero=heroes; cat=cats; dog=dogs; book=books; car=cars; tree=trees; house=houses; apple=apples; day=days;
    key=keys; boy=boys; girl=girls; hand=hands; bird=birds; table=tables; chair=chairs; flower=flowers;
    cup=cups; pen=pens; cherry=cherries; country=countries; family=families; bench=benches; class=classes;
    horse=horses; lamp=lamps"""
)
PAST = _table(
    """go=went; eat=ate; see=saw; run=ran; take=took; give=gave; come=came; make=made; write=wrote; speak=spoke;
    drink=drank; sing=sang; swim=swam; buy=bought; think=thought; bring=brought; teach=taught; catch=caught;
    find=found; know=knew; grow=grew; fly=flew; draw=drew; sleep=slept; keep=kept; leave=left; feel=felt;
    meet=met; sit=sat; stand=stood; tell=told; sell=sold; win=won; lose=lost; begin=began; break=broke;
    choose=chose; drive=drove; ride=rode; build=built; walk=walked; play=played; jump=jumped; cook=cooked"""
)
SOUNDS = _table(
    """dog=barks; cat=meows; cow=moos; sheep=baas; horse=neighs; pig=oinks; duck=quacks; lion=roars; bee=buzzes;
    snake=hisses; frog=croaks; wolf=howls; owl=hoots; mouse=squeaks; bird=sings; rooster=crows; donkey=brays;
    elephant=trumpets; turkey=gobbles; crow=caws"""
)
YOUNG = _table(
    """dog=puppy; cat=kitten; cow=calf; sheep=lamb; horse=foal; pig=piglet; duck=duckling; lion=cub; bear=cub;
    hen=chick; goat=kid; frog=tadpole; kangaroo=joey; goose=gosling; deer=fawn; swan=cygnet; wolf=pup;
    seal=pup; owl=owlet; butterfly=caterpillar"""
)
LEGS = _table(
    """dog=four; cat=four; cow=four; horse=four; sheep=four; pig=four; lion=four; elephant=four; mouse=four;
    spider=eight; ant=six; bee=six; butterfly=six; beetle=six; fly=six; bird=two; hen=two; duck=two; owl=two;
    snake=zero; worm=zero; fish=zero; frog=four; scorpion=eight; crab=ten; human=two; kangaroo=two; bear=four;
    table=four; chair=four"""
)
_CLASSES = {
    "mammal": "dog cat cow horse whale dolphin bat elephant lion mouse human bear sheep kangaroo",
    "bird": "eagle owl penguin duck hen swan parrot crow ostrich",
    "fish": "shark salmon tuna trout goldfish",
    "reptile": "snake lizard crocodile turtle",
    "insect": "ant bee butterfly beetle fly mosquito",
    "amphibian": "frog toad newt",
    "fruit": "apple banana pear cherry grape lemon mango peach",
    "vegetable": "carrot potato onion cabbage spinach cucumber",
    "flower": "rose tulip daisy lily",
    "tree": "oak pine birch",
    "musical instrument": "piano violin guitar drum flute trumpet",
    "metal": "iron gold silver copper",
    "planet": "Mars Venus Jupiter Saturn",
    "vehicle": "car bus truck bicycle train",
    "tool": "hammer saw screwdriver",
    "drink": "tea coffee milk juice",
    "sport": "football tennis basketball swimming",
}
CLASSES = {thing: name for name, things in _CLASSES.items() for thing in things.split()}
NO_ARTICLE = frozenset(
    _CLASSES["metal"].split() + _CLASSES["planet"].split() + _CLASSES["drink"].split() + _CLASSES["sport"].split()
)
SYMBOLS = _table(
    """gold=Au; silver=Ag; iron=Fe; copper=Cu; oxygen=O; hydrogen=H; carbon=C; nitrogen=N; helium=He; sodium=Na;
    water=H2O; zinc=Zn; lead=Pb; tin=Sn; calcium=Ca; neon=Ne; sulfur=S; uranium=U; salt=NaCl;
    carbon dioxide=CO2"""
)
COUNTS = _table(
    """days@a week=seven; months@a year=twelve; hours@a day=24; minutes@an hour=60; seconds@a minute=60;
    days@a year=365; weeks@a year=52; days@a leap year=366; years@a century=100; years@a decade=ten;
    sides@a triangle=three; sides@a square=four; sides@a hexagon=six; sides@a pentagon=five;
    sides@an octagon=eight; letters@the alphabet=26; players@a football team=eleven; eggs@a dozen=twelve;
    seasons@a year=four; colours@a rainbow=seven; wheels@a bicycle=two; wheels@a car=four;
    wheels@a tricycle=three; strings@a violin=four; strings@a guitar=six; planets@the solar system=eight;
    fingers@a hand=five; arms@an octopus=eight; grams@a kilogram=1000; metres@a kilometre=1000;
    centimetres@a metre=100; cents@a dollar=100; corners@a square=four"""
)
MONTH_DAYS = _table(
    """January=31; February=28; March=31; April=30; May=31; June=30; July=31; August=31; September=30; October=31;
    November=30; December=31"""
)
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = list(MONTH_DAYS)
PLANETS = ["Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune"]
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()
