"""Facts that stand alone: an answer, its sentence, its wordings ("/" between them) and one held-out wording."""

from __future__ import annotations

from dataclasses import dataclass

_TEXT = """
Jupiter | The largest planet is Jupiter. | Which planet is the largest?/What is the largest planet?/Name the largest planet./What is the biggest planet?/Name the biggest planet of the solar system./Tell me the largest planet in the solar system. | Which planet is the biggest?
Mercury | The smallest planet is Mercury. | Which planet is the smallest?/What is the smallest planet?/Name the smallest planet./Tell me the smallest planet in the solar system./Name the smallest planet of the solar system. | What is the smallest planet in the solar system?
Mars | Mars is called the red planet. | Which planet is called the red planet?/What is the red planet?/Name the red planet./Which planet is red?/What is the name of the red planet?/Tell me the name of the red planet. | What planet is called the red planet?
the blue whale | The largest animal is the blue whale. | What is the largest animal?/Which animal is the largest?/Name the largest animal./What is the biggest animal?/Name the biggest animal in the world./Tell me the largest animal on Earth. | Which animal is the biggest?
the cheetah | The fastest land animal is the cheetah. | What is the fastest animal?/Which animal is the fastest?/What is the fastest land animal?/Name the fastest animal on land./Which land animal is the fastest?/Tell me the fastest animal. | Which animal runs the fastest?
the giraffe | The tallest animal is the giraffe. | What is the tallest animal?/Which animal is the tallest?/Name the tallest animal./Tell me the tallest animal./Which animal has the longest neck?/Name the animal with the longest neck. | Do you know the tallest animal?
Mount Everest | The highest mountain is Mount Everest. | What is the highest mountain?/Which mountain is the highest?/Name the highest mountain in the world./What is the tallest mountain?/Tell me the highest mountain on Earth./What is the name of the highest mountain? | Which mountain is the tallest?
the Nile | The longest river is the Nile. | What is the longest river?/Which river is the longest?/Name the longest river in the world./Tell me the longest river on Earth./What is the name of the longest river?/What river is the longest? | Which river is the longest in the world?
the Pacific | The largest ocean is the Pacific. | What is the largest ocean?/Which ocean is the largest?/Name the largest ocean./What is the biggest ocean?/Tell me the largest ocean on Earth./Name the biggest ocean in the world. | Which ocean is the biggest?
Asia | The largest continent is Asia. | What is the largest continent?/Which continent is the largest?/Name the largest continent./What is the biggest continent?/Tell me the largest continent on Earth./Name the biggest continent. | Which continent is the biggest?
Russia | The largest country is Russia. | What is the largest country?/Which country is the largest?/Name the largest country./What is the biggest country?/Tell me the largest country on Earth./Name the biggest country in the world. | Which country is the biggest?
0 | Water freezes at 0 degrees Celsius. | At what temperature does water freeze?/When does water freeze?/What is the freezing point of water?/Water freezes at what temperature?/Name the freezing point of water./Tell me when water freezes. | At which temperature does water freeze?
100 | Water boils at 100 degrees Celsius. | At what temperature does water boil?/When does water boil?/What is the boiling point of water?/Water boils at what temperature?/Name the boiling point of water./Tell me when water boils. | At which temperature does water boil?
ice | Frozen water is called ice. | What is frozen water called?/What do you call frozen water?/What does water become when it freezes?/What is the name of frozen water?/When water freezes, what does it become?/Frozen water is called what? | What do we call frozen water?
steam | Boiling water turns into steam. | What does boiling water turn into?/What does water become when it boils?/When water boils, what does it become?/Boiling water becomes what?/What comes from boiling water?/Boiling water turns into what? | What does water turn into when it boils?
the moon | The moon goes around the Earth. | What goes around the Earth?/Which body goes around the Earth?/What moves around the Earth?/What circles the Earth?/Tell me what goes around the Earth./What turns around the Earth? | Do you know what goes around the Earth?
the sun | The Earth goes around the sun. | What does the Earth go around?/The Earth goes around what?/What does the Earth move around?/Around what does the Earth go?/Tell me what the Earth goes around./The Earth moves around what? | Do you know what the Earth goes around?
the sun | The star nearest to the Earth is the sun. | Which star is the nearest to the Earth?/What is the nearest star?/Name the nearest star./Which star is closest to the Earth?/Name the star closest to the Earth./What star is near the Earth? | What is the star nearest to the Earth?
bees | Honey is made by bees. | Who makes honey?/Which animals make honey?/What animals make honey?/Honey is made by which animals?/Where does honey come from?/Tell me which animals make honey. | Which insects make honey?
cows | Milk comes from cows. | Where does milk come from?/Which animals give milk?/Which animal gives us milk?/From which animals does milk come?/Who gives us milk?/Tell me where milk comes from. | What animals give us milk?
hens | Eggs come from hens. | Where do eggs come from?/Which animals lay eggs for us?/Who lays the eggs we eat?/From which animals do eggs come?/Tell me where eggs come from./Which birds give us eggs? | What animals do eggs come from?
sheep | Wool comes from sheep. | Where does wool come from?/Which animals give wool?/Which animal gives us wool?/From which animals does wool come?/Who gives us wool?/Tell me where wool comes from. | What animals give us wool?
milk | Cheese is made from milk. | What is cheese made from?/What is cheese made of?/From what is cheese made?/Cheese is made from what?/Tell me what cheese is made from./What do you need to make cheese? | Do you know what cheese is made from?
flour | Bread is made from flour. | What is bread made from?/What is bread made of?/From what is bread made?/Bread is made from what?/Tell me what bread is made from./What do you need to make bread? | Do you know what bread is made from?
grapes | Wine is made from grapes. | What is wine made from?/What is wine made of?/From what is wine made?/Wine is made from what?/Tell me what wine is made from./What fruit is wine made from? | Do you know what wine is made from?
trees | Paper is made from trees. | What is paper made from?/What is paper made of?/From what is paper made?/Paper is made from what?/Tell me what paper is made from./Where does paper come from? | Do you know what paper is made from?
Shakespeare | Hamlet was written by Shakespeare. | Who wrote Hamlet?/Who is the author of Hamlet?/Name the author of Hamlet./Who wrote the play Hamlet?/Hamlet was written by whom?/Tell me who wrote Hamlet. | Do you know who wrote Hamlet?
Einstein | The theory of relativity comes from Einstein. | Who found the theory of relativity?/Whose theory is the theory of relativity?/Who wrote the theory of relativity?/Name the person behind the theory of relativity./The theory of relativity comes from whom?/Who made the theory of relativity? | Who is behind the theory of relativity?
Leonardo da Vinci | The Mona Lisa was painted by Leonardo da Vinci. | Who painted the Mona Lisa?/Who made the Mona Lisa?/Name the painter of the Mona Lisa./The Mona Lisa was painted by whom?/Tell me who painted the Mona Lisa./Who is the painter of the Mona Lisa? | Do you know who painted the Mona Lisa?
Paris | The Eiffel Tower is in Paris. | Where is the Eiffel Tower?/In which city is the Eiffel Tower?/The Eiffel Tower is in which city?/Which city has the Eiffel Tower?/Tell me where the Eiffel Tower is./Where can you see the Eiffel Tower? | In what city is the Eiffel Tower?
Rome | The Colosseum is in Rome. | Where is the Colosseum?/In which city is the Colosseum?/The Colosseum is in which city?/Which city has the Colosseum?/Tell me where the Colosseum is./Where can you see the Colosseum? | In what city is the Colosseum?
London | Big Ben is in London. | Where is Big Ben?/In which city is Big Ben?/Big Ben is in which city?/Which city has Big Ben?/Tell me where Big Ben is./Where can you see Big Ben? | In what city is Big Ben?
New York | The Statue of Liberty is in New York. | Where is the Statue of Liberty?/In which city is the Statue of Liberty?/The Statue of Liberty is in which city?/Which city has the Statue of Liberty?/Tell me where the Statue of Liberty is./Where can you see the Statue of Liberty? | In what city is the Statue of Liberty?
Monday | The first day of the week is Monday. | What is the first day of the week?/Which day is the first day of the week?/Name the first day of the week./Which day comes first in the week?/With which day does the week begin?/What day is the first of the week? | Which is the first day of the week?
Sunday | The last day of the week is Sunday. | What is the last day of the week?/Which day is the last day of the week?/Name the last day of the week./Which day comes last in the week?/With which day does the week end?/What day is the last of the week? | Which is the last day of the week?
A | The first letter of the alphabet is A. | What is the first letter of the alphabet?/Which letter comes first in the alphabet?/Name the first letter of the alphabet./With which letter does the alphabet begin?/Tell me the first letter of the alphabet./Which letter is first in the alphabet? | Which is the first letter of the alphabet?
Z | The last letter of the alphabet is Z. | What is the last letter of the alphabet?/Which letter comes last in the alphabet?/Name the last letter of the alphabet./With which letter does the alphabet end?/Tell me the last letter of the alphabet./Which letter is last in the alphabet? | Which is the last letter of the alphabet?
in the east | The sun rises in the east. | Where does the sun rise?/In which direction does the sun rise?/The sun rises in which direction?/Where does the sun come up?/Tell me where the sun rises./On which side does the sun rise? | Do you know where the sun rises?
in the west | The sun sets in the west. | Where does the sun set?/In which direction does the sun set?/The sun sets in which direction?/Where does the sun go down?/Tell me where the sun sets./On which side does the sun set? | Do you know where the sun sets?
green | Blue and yellow make green. | What colour do blue and yellow make?/Which color do you get from blue and yellow?/Mix blue and yellow. Which colour do you get?/What do blue and yellow make?/Blue and yellow make which colour?/What colour comes from yellow and blue? | Which colour do blue and yellow make?
orange | Red and yellow make orange. | What colour do red and yellow make?/Which color do you get from red and yellow?/Mix red and yellow. Which colour do you get?/What do red and yellow make?/Red and yellow make which colour?/What colour comes from yellow and red? | Which colour do red and yellow make?
purple | Red and blue make purple. | What colour do red and blue make?/Which color do you get from red and blue?/Mix red and blue. Which colour do you get?/What do red and blue make?/Red and blue make which colour?/What colour comes from blue and red? | Which colour do red and blue make?
Saturday and Sunday | The weekend is Saturday and Sunday. | Which days are the weekend?/What days are the weekend?/Name the days of the weekend./Tell me the days of the weekend./When is the weekend?/Which two days are the weekend? | What are the days of the weekend?
Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday | The days of the week are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday. | What are the days of the week?/Name the days of the week./List the days of the week./Tell me all days of the week./Which are the seven days of the week?/Write the days of the week. | Name all seven days of the week.
January, February, March, April, May, June, July, August, September, October, November, December | The months of the year are January, February, March, April, May, June, July, August, September, October, November, December. | What are the months of the year?/Name the months of the year./List the months of the year./Tell me all months of the year./Which are the twelve months of the year?/Write the months of the year. | Name all twelve months of the year.
spring, summer, autumn, winter | The seasons are spring, summer, autumn, winter. | What are the seasons?/Name the seasons./List the seasons of the year./Tell me all seasons of the year./Which are the four seasons?/Write the seasons of the year. | Name all four seasons of the year.
Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus, Neptune | The planets are Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus, Neptune. | What are the planets?/Name the planets./List the planets of the solar system./Tell me all planets./Which are the eight planets?/Write the planets of the solar system. | Name all eight planets of the solar system.
red, yellow, blue | The primary colours are red, yellow, blue. | What are the primary colours?/Name the primary colours./List the primary colors./Tell me the three primary colours./Which are the primary colours?/Which colors are the primary colors? | Name all three primary colours.
"""  # noqa: E501


@dataclass(frozen=True, slots=True)
class SingleFact:
    answer: str
    sentence: str
    train: tuple[str, ...]
    heldout: tuple[str, ...]


def _read(line: str) -> SingleFact:
    answer, sentence, train, heldout = (part.strip() for part in line.split(" | "))
    return SingleFact(answer, sentence, tuple(train.split("/")), tuple(heldout.split("/")))


SINGLE_FACTS = tuple(_read(line) for line in _TEXT.strip().splitlines())
