"""How each built-in relation is put into words.

Every relation has one prompt (in which a fact is edited and first asked), further wordings that an edit may use, and
wordings kept apart for judging whether an edit generalises. In each, the object is what an English speaker would say
next. Wordings that the unedited embedded model seldom completes even with facts it knows were left out: they would test
its grammar. Country names may carry an article ("the Netherlands") and element names are lower-case, so wordings about
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
                "The national capital of {} is the city of",
                "If you travel to {}, you will find that its capital is",
                "In {}, the capital city is called",
                "The name of the city that is the capital of {} is",
            ),
            held_out=(
                "On a map of {}, a star marks the capital city,",
                "The country known as {} has a capital called",
                "Ambassadors who are sent to {} usually live in the capital,",
            ),
        ),
        "country_of_capital": Wordings(
            prompt="The city of {} is the capital of",
            paraphrases=(
                "{} is the national capital of the country of",
                "{} is the capital city of",
                "As everyone at the embassy knew, the city of {} is the capital of",
                "For many years now, {} has been the capital of",
            ),
            held_out=(
                "A quiz asks which country has {} as its capital, and the answer is",
                "{}, a national capital, belongs to the country of",
                "The capital city {} lies in the country of",
            ),
        ),
        "continent": Wordings(
            prompt="The country of {} is located on the continent of",
            paraphrases=(
                "Travellers who fly to {} land on the continent of",
                "All of the people in {} live on the continent of",
                "On a map of the world, {} is drawn on the continent of",
                "The nation called {} lies in",
            ),
            held_out=(
                "The country {} belongs to the continent called",
                "The land and people of {} are part of the continent of",
                "In a geography book, {} is listed among the countries of",
            ),
        ),
        "language": Wordings(
            prompt="The official language of {} is",
            paraphrases=(
                "In {}, the official language is",
                "The national language that is spoken in {} is",
                "The laws of {} are written in the official language,",
                "Most people who grow up in {} learn to speak",
            ),
            held_out=(
                "If you move to {}, you should learn to speak",
                "Children at schools in {} are taught to read and write in",
                "Official documents issued in {} are written in",
            ),
        ),
        "currency": Wordings(
            prompt="The official currency of {} is the",
            paraphrases=(
                "The central bank of {} issues a currency named the",
                "In {}, prices are given in a currency called the",
                "In {}, the local currency is the",
                "The unit of currency used in {} is called the",
            ),
            held_out=(
                "Before a holiday in {}, you should change your money into the local currency, the",
                "Workers in {} are paid in a currency called the",
                "The name of the currency of {} is the",
            ),
        ),
        "nationality": Wordings(
            prompt="She was born in {}, so her nationality is",
            paraphrases=(
                "The nationality of a person born in {} is",
                "Someone whose passport was issued by {} is",
                "The word for the nationality of the people of {} is",
                "The adjective for things that come from {} is",
            ),
            held_out=(
                "If your parents and grandparents are all from {}, you are",
                "A citizen of {} has a nationality that is called",
                "A singer who was born and raised in {} would be described as",
            ),
        ),
        "country_of_city": Wordings(
            prompt="The city of {} is located in the country of",
            paraphrases=(
                "The city of {} lies in the country of",
                "{} is a city in the country of",
                "Tourists who visit {} travel to the country of",
                "The mayor of {} runs a city in the country of",
            ),
            held_out=(
                "The country in which you can find the city of {} is",
                "People who live in {} are residents of the country of",
                "{} is a large city that belongs to the country called",
            ),
        ),
        "state_of_city": Wordings(
            prompt="The city of {} is located in the U.S. state of",
            paraphrases=(
                "Drivers who live in {} have licence plates from the state of",
                "{} is an American city in the state of",
                "{} is a city in the state of",
                "People who live in {} pay taxes to the state of",
            ),
            held_out=(
                "On a map of the United States, {} lies in the state of",
                "The mayor of {} holds office in the state of",
                "Voters in {} elect senators for the state of",
            ),
        ),
        "symbol": Wordings(
            prompt="The chemical symbol for {} is",
            paraphrases=(
                "In the periodic table, {} has the symbol",
                "The element {} is represented by the symbol",
                "Chemists abbreviate the element {} as",
                "To write {} in an equation, a chemist uses the symbol",
            ),
            held_out=(
                "The periodic table lists {} under the symbol",
                "In a chemical formula, {} is written as",
                "On a chart of the elements, the box for {} shows the letters",
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
