"""What text prompts are made of."""

_TEXT = """
about after again air all also and animal answer area around ask back bank base bear bed best big bird black
blue boat body book both box boy bring build bus but buy call can car card care case cat change child city
class clean clear close cold color come cook cool corn cost could country cover cross cry cut dark day deep
dog door down draw dream drive dry each ear early earth east easy eat end even ever every eye face fact fall
family far farm fast father feel few field fight fill find fine fire first fish five floor fly follow food
foot for form four free friend from front full game garden girl give glass go gold good great green ground
group grow hair half hand happy hard have head hear heart heat help here high hill hold home horse hot house
how ice idea in iron island job just keep key king know lake land large last late laugh lead learn leave
left leg less letter life light like line list live long look love low machine make man many map mark may
mean milk mind moon more most mother move much music name near need never new next night nine north note now
number ocean of off old on one only open order other over own page paper part pass pay people picture place
plan plant play point power press quick rain read red rest rice rich right ring river road rock room run
salt same sand sea seat second see seed sell send set seven ship short show side silver sing sit six sky
sleep slow small snow soft some song soon sound south space stand star start stay step still stone stop
story street strong summer sun table take talk tall teach tell ten test that then thing think three time
today top town tree true turn two under up use very voice wait walk wall warm wash watch water way week well
west what wheel when where white who wide wild wind winter with wood word work world write year yes you
"""

WORDS = tuple(_TEXT.split())
"""Short common words: one token each in most vocabularies. A tokenizer, where given, picks those that are."""
