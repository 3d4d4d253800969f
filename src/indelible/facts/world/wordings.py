"""How each built-in relation is put into words.

Every relation has one prompt (in which a fact is edited and first asked), further wordings that an edit may use, and
wordings kept apart for judging whether an edit generalises. In each, the object is what an English speaker would say
next. Country names may carry an article ("the Netherlands") and element names are lower-case, so wordings about
countries and elements never open with the subject; wordings about cities may.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Wordings:
    """The templates of one relation; each has one slot, and the object follows after a space.

    Attributes:
        prompt: the wording that is edited and asked.
        paraphrases: further wordings for edits.
        held_out: wordings that no edit may use.
    """

    prompt: str
    paraphrases: tuple[str, ...]
    held_out: tuple[str, ...]


WORDINGS: Mapping[str, Wordings] = MappingProxyType(
    {
        "capital": Wordings(
            prompt="The capital city of {} is",
            paraphrases=(
                "The capital of {} is",
                "In {}, the capital city is called",
                "The national capital of {} is the city of",
                "If you travel to {}, you will find that its capital is",
                "Every pupil learns that {} has as its capital",
                "The name of the city that is the capital of {} is",
            ),
            held_out=(
                "The city that serves as the capital of {} is",
                "Ambassadors who are sent to {} usually live in the capital,",
                "On a map of {}, a star marks the capital city,",
                "The country known as {} has a capital called",
            ),
        ),
        "country_of_capital": Wordings(
            prompt="The city of {} is the capital of",
            paraphrases=(
                "{} is the capital city of",
                "{} is the national capital of the country of",
                "As everyone at the embassy knew, the city of {} is the capital of",
                "Of all the capitals they visited, {} was the capital of",
                "Among the world's capitals, {} is the one that belongs to",
            ),
            held_out=(
                "For many years now, {} has been the capital of",
                "{}, a national capital, belongs to the country of",
                "The government ministries in {} are those of",
                "A quiz asks which country has {} as its capital, and the answer is",
            ),
        ),
        "continent": Wordings(
            prompt="The country of {} is located on the continent of",
            paraphrases=(
                "On a world map, {} can be found in",
                "The continent on which {} lies is",
                "Geographically, {} is a country in",
                "Travellers who fly to {} land on the continent of",
                "The land and people of {} are part of the continent of",
            ),
            held_out=(
                "The name of the continent that contains {} is",
                "In a geography book, {} is listed among the countries of",
                "The country {} belongs to the continent called",
                "If you are standing in {}, the continent under your feet is",
            ),
        ),
        "language": Wordings(
            prompt="The official language of {} is",
            paraphrases=(
                "In {}, the official language is",
                "The laws of {} are written in the official language,",
                "Most people who grow up in {} learn to speak",
                "The national language that is spoken in {} is",
                "Newspapers in {} are usually printed in",
            ),
            held_out=(
                "The language that the government of {} uses is",
                "Children at schools in {} are taught to read and write in",
                "If you move to {}, you should learn to speak",
                "Official documents issued in {} are written in",
            ),
        ),
        "currency": Wordings(
            prompt="The official currency of {} is the",
            paraphrases=(
                "In {}, the local currency is the",
                "The unit of currency used in {} is called the",
                "In {}, prices are given in a currency called the",
                "People who go shopping in {} pay with the",
                "The central bank of {} issues a currency named the",
            ),
            held_out=(
                "Before a holiday in {}, you should change your money into the local currency, the",
                "Workers in {} are paid in a currency called the",
                "The name of the currency of {} is the",
                "The banknotes and coins of {} belong to a currency known as the",
            ),
        ),
        "nationality": Wordings(
            prompt="She was born in {}, so her nationality is",
            paraphrases=(
                "The nationality of a person born in {} is",
                "The adjective for things that come from {} is",
                "A citizen of {} has a nationality that is called",
                "Someone whose passport was issued by {} is",
                "If your parents and grandparents are all from {}, you are",
            ),
            held_out=(
                "The word for the nationality of the people of {} is",
                "A singer who was born and raised in {} would be described as",
                "Food that is typical of {} is called",
                "When a team from {} wins, the newspapers say that the winners are",
            ),
        ),
        "country_of_city": Wordings(
            prompt="The city of {} is located in the country of",
            paraphrases=(
                "{} is a city in the country of",
                "The city of {} lies in the country of",
                "On a map, the city of {} lies within the borders of",
                "The country in which you can find the city of {} is",
                "People who live in {} are residents of the country of",
            ),
            held_out=(
                "The name of the country where {} is situated is",
                "{} is a large city that belongs to the country called",
                "To visit the city of {}, you need to travel to",
                "The national government that rules the city of {} is the government of",
            ),
        ),
        "state_of_city": Wordings(
            prompt="The city of {} is located in the U.S. state of",
            paraphrases=(
                "{} is a city in the state of",
                "{} is an American city in the state of",
                "The American state in which you can find the city of {} is",
                "Drivers who live in {} have licence plates from the state of",
                "On a map of the United States, {} lies in the state of",
            ),
            held_out=(
                "The name of the U.S. state where {} is situated is",
                "The mayor of {} holds office in the state of",
                "{} belongs to the American state called",
                "Voters in {} elect senators for the state of",
            ),
        ),
        "symbol": Wordings(
            prompt="The chemical symbol for {} is",
            paraphrases=(
                "In the periodic table, {} has the symbol",
                "Chemists abbreviate the element {} as",
                "The element {} is represented by the symbol",
                "In a chemical formula, {} is written as",
                "The symbol that stands for the element {} is",
            ),
            held_out=(
                "On a chart of the elements, the box for {} shows the letters",
                "The periodic table lists {} under the symbol",
                "The abbreviation that is used for {} in chemistry is",
                "To write {} in an equation, a chemist uses the symbol",
            ),
        ),
        "atomic_number": Wordings(
            prompt="The atomic number of {} is",
            paraphrases=(
                "In the periodic table, {} has the atomic number",
                "The number of protons in an atom of {} is",
                "The element {} has an atomic number of",
                "An atom of {} has a nucleus whose number of protons is",
                "The nucleus of {} carries a positive charge of",
            ),
            held_out=(
                "The periodic table lists {} as element number",
                "Counting the protons in one atom of {} gives",
                "The atomic number that belongs to the element {} is",
                "A neutral atom of {} has a number of electrons equal to",
            ),
        ),
    }
)
