"""Small words and how they are read: what carries no meaning, what carries little, what counts."""

from __future__ import annotations

from typing import Final

from appliance.answering.lexicon import listed

FILLERS: Final = listed(
    "a an the i you we they he she it me us them him her my your our their his its mine yours "
    "ours theirs this that these those here there who whom whose which what and or but both either "
    "whether how be do have am is are was were been being does did has had having doing "
    "in on at to for of from with by as into onto via upon about over under above below around "
    "please also too simply then so well such own even than per yourself themselves itself one "
    "ones through using via across among between plus where since while case hence anything "
    "something someone anybody somebody anyone"
)
"""Words that carry no meaning of their own here."""
LIGHT: Final = listed(
    "get make take give use go come let want wish way thing happen occur available apply "
    "process procedure step item order button page menu tab field screen section option symbol "
    "icon "
    "date time period amount sum fee charge price cost case receive become stay remain find "
    "following place able simple easy easily kind type able current present correct relevant "
    "respective ok thank like would lasting lasts weigh weighing keep know tell mean means "
    "together home mains leave put fall distance"
) | {"take place", "be held", "be there", "fall on"}
"""Words that say little: they may be added, and left out beside others that are said."""
PEOPLE: Final = listed(
    "customer client user patient passenger traveller traveler buyer shopper caller guest visitor "
    "rider subscriber consumer purchaser person people anyone everyone somebody someone "
    "individual "
    "holder cardholder parent participant applicant candidate donor driver tenant learner "
    "listener viewer reader"
)
"""Whom an article speaks of where an answer says "you"."""
GRATIS: Final = frozenset(
    {
        *(
            "free",
            "for free",
            "free of charge",
            "free of cost",
            "complimentary",
            "gratis",
            "costless",
        ),
        *("at no cost", "at no extra cost", "at no additional cost", "without cost"),
        *("at no charge", "at no extra charge", "at no additional charge", "without charge"),
    }
)
"""What costs nothing: a fee and a negation."""
NEGATED: Final = {
    "invalid": "valid",
    "incorrect": "correct",
    "incomplete": "complete",
    "inactive": "active",
    "inappropriate": "appropriate",
    "incompatible": "compatible",
    "ineligible": "eligible",
    "insufficient": "sufficient",
    "irreversible": "undo",
    "irrevocable": "revoke",
    "illegible": "legible",
    "unable": "able",
}
"""What other prefixes than "un" negate."""
NUMBERS: Final = {
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
    "eleven": "11",
    "twelve": "12",
    "thirteen": "13",
    "fourteen": "14",
    "fifteen": "15",
    "sixteen": "16",
    "seventeen": "17",
    "eighteen": "18",
    "nineteen": "19",
    "twenty": "20",
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
    "sixty": "60",
    "seventy": "70",
    "eighty": "80",
    "ninety": "90",
    "hundred": "100",
    "thousand": "1000",
    "dozen": "12",
}
MONEY: Final = {
    "€": r"€|EUR|euros?",
    "$": r"\$|USD|dollars?",
    "£": r"£|GBP|pounds?",
    "%": r"%|percent|per cent",
}
"""How amounts are written: a sign, and all that stands for it."""
MONTHS: Final = listed(
    "january february march april may june july august september october november december"
)
PERIODS: Final = listed("hour day week month quarter year")
DAYS: Final = listed("monday tuesday wednesday thursday friday saturday sunday")
FILLED: Final = listed("fill key type log sign plug switch turn hand send check")
"""Verbs whose "in" belongs to them whatever follows."""
BEING: Final = listed("is are was were be been being becomes become gets get keep keeps")
"""Verbs that what is stated hangs on."""
POINTING: Final = listed("first second third next last other another new old this that the each")
"""Words behind which "one" stands for a thing."""
ACTORS: Final = listed("we you it they")
"""Words that begin a clause of their own behind ", or"."""
SUBJECTS: Final = listed(
    "the a an your our you we they it this that these those my their its no he she one every each "
    "all any"
)
"""Words that begin a subject or an object."""
