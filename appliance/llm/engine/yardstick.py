"""What a requantized model must still be able to do: a dozen answers and two dozen labels, as data.

Written for this purpose, about products no knowledge base here has, so that neither the weights nor
the prompts of the desk were tuned on it. Small on purpose: it runs on the customer's machine at
first start, and it asks only whether a type is worse than the file it was made from, not how good
the model is.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Reading(NamedTuple):
    """A passage, a question on it, and the answer a good desk would give."""

    passage: str
    question: str
    answer: str


READING_TASK: Final = "Answer the customer's question with the passage only. Be brief."
LABEL_TASK: Final = (
    "Name the topic of the customer's message: Technical, Billing, Account or General."
)
LABELS: Final = ("Technical", "Billing", "Account", "General")

READINGS: Final[tuple[Reading, ...]] = (
    Reading(
        "To pair the lamp, hold its button for five seconds until it blinks blue, then "
        "choose Add device.",
        "How do I pair my lamp?",
        "Hold the button for five seconds until the lamp blinks blue, then choose Add device.",
    ),
    Reading(
        "Invoices are sent by email on the first day of each month and can be downloaded "
        "for two years.",
        "When do I get my invoice?",
        "Invoices are sent by email on the first day of each month.",
    ),
    Reading(
        "You can change the name on your profile once every 30 days under Settings, Profile.",
        "Can I change my name again next week?",
        "You can change your name once every 30 days under Settings, Profile.",
    ),
    Reading(
        "The bakery is open from 7 am to 6 pm on weekdays and from 8 am to noon on Saturdays.",
        "When are you open on Saturday?",
        "On Saturdays we are open from 8 am to noon.",
    ),
    Reading(
        "If the printer shows error E3, open the rear cover, remove the stuck paper and "
        "close the cover.",
        "My printer says E3. What should I do?",
        "Open the rear cover, remove the stuck paper and close the cover.",
    ),
    Reading(
        "Refunds go back to the card that was used and arrive within five to ten working days.",
        "How long does a refund take?",
        "A refund arrives within five to ten working days on the card that was used.",
    ),
    Reading(
        "Children under six travel free. A child ticket is needed from six to fourteen years.",
        "Does my four year old need a ticket?",
        "No, children under six travel free.",
    ),
    Reading(
        "Two people can use one licence at the same time; a third is asked to wait until "
        "one signs out.",
        "How many people can use one licence?",
        "Two people can use one licence at the same time.",
    ),
    Reading(
        "Orders above 50 euros are shipped free of charge. Below that, shipping costs 4.90 euros.",
        "What does shipping cost for an order of 30 euros?",
        "Shipping costs 4.90 euros for orders below 50 euros.",
    ),
    Reading(
        "The battery lasts about twelve hours and charges fully in ninety minutes.",
        "How long does charging take?",
        "The battery charges fully in ninety minutes.",
    ),
    Reading(
        "To close your account, write to the privacy team; your data is deleted after "
        "fourteen days.",
        "When is my data deleted after I close my account?",
        "Your data is deleted after fourteen days.",
    ),
    Reading(
        "The app needs version 12 of the system or newer. Older devices can use the "
        "website instead.",
        "My phone has version 11. What can I do?",
        "The app needs version 12 or newer, but you can use the website instead.",
    ),
)

SHOTS: Final[tuple[tuple[str, str], ...]] = (
    ("The app closes as soon as I open it.", "Technical"),
    ("You charged my card twice this month.", "Billing"),
    ("I want to change the email address I sign in with.", "Account"),
    ("Where is your nearest shop?", "General"),
    ("The screen stays black after the update.", "Technical"),
    ("Please send me the invoice for March.", "Billing"),
    ("I forgot my password and cannot sign in.", "Account"),
    ("Do you have gift cards?", "General"),
)

LABELLED: Final[tuple[tuple[str, str], ...]] = (
    ("The page shows error 500 when I save.", "Technical"),
    ("My headset will not connect to the computer.", "Technical"),
    ("The video freezes every few seconds.", "Technical"),
    ("Installing the update fails at 80 percent.", "Technical"),
    ("The scanner makes a loud noise and stops.", "Technical"),
    ("Search gives no results since yesterday.", "Technical"),
    ("Why is my bill higher than last month?", "Billing"),
    ("I would like my money back for this order.", "Billing"),
    ("My credit card payment was declined.", "Billing"),
    ("The discount is missing on my invoice.", "Billing"),
    ("Can I pay by bank transfer?", "Billing"),
    ("I was charged after I cancelled.", "Billing"),
    ("How do I delete my account?", "Account"),
    ("Somebody else signed in as me.", "Account"),
    ("I need to update my phone number in my profile.", "Account"),
    ("My account is locked after three attempts.", "Account"),
    ("How can I add a second user to my account?", "Account"),
    ("I did not get the email to reset my password.", "Account"),
    ("What are your opening hours?", "General"),
    ("Do you ship to Norway?", "General"),
    ("Are you hiring at the moment?", "General"),
    ("Who founded the company?", "General"),
    ("Is there parking near your office?", "General"),
    ("Thank you, that was very kind of you.", "General"),
)
