"""The handoff's own words in the languages that most customers write who write no English.

Short and plain, so that they are right wherever they are read. ``{reference}`` is the case.
"""

from __future__ import annotations

from typing import Final

HANDED_OVER: Final[dict[str, str]] = {
    "de": (
        "Ich kann Ihre Sprache leider nicht gut genug lesen, um selbst zu antworten. "
        "Ein Mensch aus unserem Team liest Ihre Nachricht. Ihre Fallnummer ist {reference}."
    ),
    "fr": (
        "Je ne lis malheureusement pas assez bien votre langue pour répondre moi-même. "
        "Une personne de notre équipe lira votre message. Votre numéro de dossier est {reference}."
    ),
    "es": (
        "Lamentablemente no leo su idioma lo bastante bien para responder yo mismo. "
        "Una persona de nuestro equipo leerá su mensaje. Su número de caso es {reference}."
    ),
    "it": (
        "Purtroppo non leggo la sua lingua abbastanza bene per rispondere da solo. "
        "Una persona del nostro team leggerà il suo messaggio. Il numero del suo caso è "
        "{reference}."
    ),
    "pt": (
        "Infelizmente não leio a sua língua bem o bastante para responder. "
        "Uma pessoa da nossa equipe lerá a sua mensagem. O número do seu caso é {reference}."
    ),
    "nl": (
        "Helaas lees ik uw taal niet goed genoeg om zelf te antwoorden. "
        "Iemand van ons team leest uw bericht. Uw zaaknummer is {reference}."
    ),
    "pl": (
        "Niestety nie czytam w Państwa języku na tyle dobrze, żeby odpowiedzieć. "
        "Wiadomość przeczyta osoba z naszego zespołu. Numer sprawy: {reference}."
    ),
    "tr": (
        "Ne yazık ki dilinizi yanıt verecek kadar iyi okuyamıyorum. "
        "Mesajınızı ekibimizden bir kişi okuyacak. Kayıt numaranız: {reference}."
    ),
    "ru": (
        "К сожалению, я недостаточно хорошо читаю на вашем языке, чтобы ответить. "
        "Ваше сообщение прочитает сотрудник нашей команды. Номер обращения: {reference}."
    ),
    "ar": (
        "للأسف لا أقرأ لغتكم جيدًا بما يكفي للرد بنفسي. "
        "سيقرأ رسالتكم شخص من فريقنا. رقم الحالة: {reference}."
    ),
    "zh": (
        "很抱歉,我对您的语言理解有限,无法自己回答。我们团队的一位同事会阅读您的留言。"
        "您的案件编号是 {reference}。"
    ),
}
