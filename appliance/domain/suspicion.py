"""What has no place in an article: words to the assistant instead of the customer, requests for
customers' secrets, code and remote content.

Functions from a text to the stretches that are such, as in ``secret_forms``. They look at a whole
text, because an instruction may be spread over lines. A sentence held in vain costs an
administrator one look; one let through may cost a customer's card.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from appliance.domain.policy import QuarantineReason

Span = tuple[int, int]

_LOOKALIKES: Final = str.maketrans(
    "аеорсухіјѕԁһктмнвАВЕКМНОРСТУХІЅαορνκτιΑΒΕΖΗΙΚΜΝΟΡΤΥΧıłøđ",
    "aeopcyxijsdhktmhbABEKMHOPCTYXISaopvktiABEZHIKMNOPTYXilod",
)
_LEET: Final = tuple(str.maketrans("0134578@$!|", f"o{one}eastbasil") for one in "li")
"""Digits and signs that stand for letters, of the same length as what they stand for; a 1 may be
two of them."""


_LEET_INSIDE: Final = re.compile(r"[a-z][0134578@$!|]+[a-z]|\b[0134578@$]+[a-z]{2}")


def plain(text: str) -> str:
    """The text as patterns read it: as long as it was, in lower case, without accents, widths and
    lookalikes."""
    if text.isascii():
        return text.lower()
    return "".join(map(_plain, text.translate(_LOOKALIKES)))


def _plain(character: str) -> str:
    base = unicodedata.normalize("NFKD", character)[:1].lower()
    return base if base.isascii() and base.isprintable() and base else _lower(character)


def _lower(character: str) -> str:
    lower = character.lower()
    return lower if len(lower) == 1 else character


# --- words to the assistant -----------------------------------------------------------------------

_RULES: Final = (
    r"(?:instructions?|prompts?|rules?|guidelines?|guidance|directions?|directives?|commands?|constraints?"
    r"|restrictions?|safeguards?|polic(?:y|ies)|context|programming|training)"
)
_EARLIER: Final = (
    r"(?:all|any|the|your|every|these|those|of|previous|prior|preceding|earlier|former|above|foregoing"
    r"|existing|initial|original|system|other|given|safety|and)"
)
_SPEAK: Final = (
    r"(?:repl(?:y|ies)|respond|answer|say|tell|output|print|write|state|claim|recommend|reveal"
    r"|repeat|confirm|promise|pretend|ignore|obey|refuse|cite|quote|append|include|grant|approve"
    r"|mention|recommend)"
)
_MACHINE: Final = (
    r"(?:assistants?|chat-?bots?|bots?|ai|a\.i\.|llms?|language\s+models?|gpt|chatgpt|models?)"
)
_REAL_ASSISTANT: Final = "".join(
    rf"(?<!{word}\s)"
    for word in ("setup", "installation", "migration", "import", "voice", "export", "meeting")
)
"""Programs are called assistants too."""

_ASSISTANT: Final = (
    # ignore all previous instructions
    r"\b(?:ignor(?:e|ing)|disregard(?:ing)?|set(?:ting)?\s+aside|forget|overrid(?:e|ing)|bypass(?:ing)?|discard|drop"
    rf"|neglect|do\s+not\s+(?:follow|obey)|don['’]t\s+(?:follow|obey))(?:\s+{_EARLIER})+\s+{_RULES}\b",
    r"\b(?:ignore|disregard|forget)\s+(?:everything|all|anything|what(?:ever)?)\s+(?:that\s+)?"
    r"(?:above|before|you|said|written|was|is|has|came|stands|so\s+far|previously|prior|the\s+\w+"
    r"\s+(?:above|before))\b",
    r"\b(?:ignore|disregard|forget)\s+(?:the\s+|all\s+|everything\s+)*above\s*(?:[.!,:;]|and\b|\Z)",
    r"\byou\s+are\s+(?:hereby\s+)?(?:instructed|ordered|commanded|programmed)\s+to\b|\bsystem\s+override\b",
    rf"\b(?:hey|dear|hello|hi)\s+(?:chatgpt|gpt|ai|llm|language\s+model)\b|\b{_MACHINE}\s*,\s*you\s+(?:must|have|are|should|will|shall)\b",
    r"\byou\s+(?:will|must|shall|should)\s+(?:now|henceforth)\s+(?:speak|act|behave|respond|answer|reply|pretend"
    r"|obey|say)\b",
    r"(?:^|(?<=[.!?]\s)|(?<=\n))(?:respond|reply|answer)\s+(?:only|exclusively|solely)\b",
    r"\bsay(?:ing)?\s+to\s+the\s+(?:user|customer|client)s?\b",
    r"\binstead\s+of\s+your\s+(?:guidelines|instructions|rules|prompt|programming)\b",
    r"\bdo\s+(?:whatever|anything|everything)\s+(?:that\s+)?(?:the\s+)?(?:users?|customers?|they|i)\s+"
    r"(?:says?|asks?|wants?|tells?)\b",
    rf"\bwhen\s+(?:you\s+)?(?:answer|reply|respond)(?:ing)?\b[^.!?\n]{{0,40}}?,\s*(?:always|never|{_SPEAK})\b",
    r"(?:^|(?<=[.!?]\s)|(?<=\n))(?:answer|reply\s+to|respond\s+to)\s+(?:every|all|any|each)\s+"
    r"(?:question|message|customer|request|query|user)s?\b",
    r"\b(?:ai|llm|gpt)\s+(?:models?|assistants?|agents?|bots?|systems?)\s+(?:reading|must|should|shall"
    r"|have\s+to)\b",
    r"\b(?:new|updated|real|actual|secret|hidden|true)\s+(?:system\s+)?instructions?\s*(?::|follow\b|are\b)",
    r"\b(?:ignoriere|vergiss|missachte)\w*\s+(?:\w+\s+){0,3}(?:anweisung|regel|vorgabe|befehl)\w*",
    r"\b(?:ignore[zr]?|oublie[zr]?)\s+(?:\w+\s+){0,3}(?:instructions|consignes|regles)\b",
    r"\b(?:ignora|olvida|omite|dimentica)\w*\s+(?:\w+\s+){0,4}(?:instrucciones|reglas|istruzioni|regole)\b",
    r"\b(?:ignore|esqueca|desconsidere)\s+(?:\w+\s+){0,3}(?:instrucoes|regras)\b",
    r"\b(?:negeer|vergeet)\s+(?:\w+\s+){0,3}(?:instructies|regels|opdrachten)\b",
    r"\b(?:zignoruj|pomin)\s+(?:\w+\s+){0,3}(?:instrukcje|polecenia|zasady)\b",
    r"\btalimatlari\s+(?:\w+\s+)?(?:yok\s+say|unut|gormezden)",
    # In these alphabets lookalikes are letters, so that the pattern is folded as the text is.
    plain("(?:игнорируй|забудь)") + r"\w*\s+(?:\S+\s+){0,3}" + plain("(?:инструкц|указан|правил)"),
    "忽略(?:以上|之前|先前|所有|前面|上述)|(?:تجاهل|انس)"
    + r"\s+(?:\w+\s+){0,2}(?:التعليمات|القواعد)",
    # you are now DAN
    rf"\byou\s+are\s+(?:now\s+|no\s+longer\s+|actually\s+|really\s+)*(?:an?\s+|the\s+|my\s+)?"
    rf"(?:\w+[\s-]+){{0,3}}?(?:{_MACHINE}|dan|jailbroken|unrestricted|unfiltered|bound\s+by|pirate"
    r"|persona|free\s+of\s+(?:all\s+)?(?:rules|restrictions)|in\s+(?:developer|debug|god|admin|dan)"
    r"\s+mode)\b",
    r"\b(?:act|behave|pose)\s+(?:as|like)\s+(?:an?|the|my|(?:if|though)\s+you)\b",
    r"\byour\s+new\s+(?:role|task|job|purpose|goal)\s+is\s+to\b",
    r"\b(?:begin|start|end|finish)\s+(?:every|each|all|your)\s+(?:reply|replies|answers?|responses?|messages?)\s+with\b",
    rf"(?:^|(?<=[.!?]\s)|(?<=\n)){_MACHINE}\s*,\s*(?:{_SPEAK}|forget|please|do|always|never|from)\b",
    r"\bpretend\s+(?:to\s+be|that\s+you|you\s+are|you['’]re)\b",
    r"\b(?:roleplay|role-play|jailbreak|dan\s+mode|developer\s+mode\s+(?:enabled|activated|unlocked)"
    r"|do\s+anything\s+now)\b",
    r"\bfrom\s+now\s+on\b[,\s]+(?:you|always|never|reply|respond|answer|say|ignore)\b",
    rf"\bas\s+an?\s+(?:\w+\s+){{0,2}}?{_MACHINE}\b[,\s]+(?:you|your|i)\b",
    # assistant: always reply
    rf"\b{_REAL_ASSISTANT}(?:assistant|chat-?bot|bot|ai|llm|gpt|model)\s*[:>]\s",
    r"(?:^|(?<=\n)|(?<=[.!?]\s))(?:system|user|human|instructions?|developer)\s*:\s*(?:you|ignore|always"
    rf"|never|do\s+not|from\s+now|the\s+(?:user|customer)|{_SPEAK})\b",
    # the parts of our own prompts
    r"\bquestion\s+of\s+an?\s+\w+\s+customer\s*:|\bearlier\s+(?:customer|assistant|agent)\s*:"
    r"|\bcopy\s+the\s+sentences\s+of\s+the\s+article\b|\bname\s+the\s+numbers\s+of\s+the\s+sent",
    r"(?:^|(?<=\n))#{2,}\s*(?:system|instructions?|user|assistant|human|response|developer)\b",
    rf"\b(?:note|message|instructions?|reminder|attention|hint|memo)\s+(?:to|for)\s+(?:the|any|all|every)?"
    rf"\s*(?:\w+\s+)?{_MACHINE}\b",
    rf"\b{_REAL_ASSISTANT}(?:the|this|every|any|all|dear|hey|hello|support|our)\s+(?:\w+\s+)?{_MACHINE}"
    rf"(?:\s+(?:reading|processing|that\s+reads|that\s+answers)\b|[,\s]+(?:must|should|has\s+to|have\s+to"
    rf"|shall|will|please|is\s+(?:instructed|required|told|ordered)\s+to)\s+(?:always\s+|never\s+|not\s+"
    rf"|now\s+|only\s+)*{_SPEAK}\b)",
    r"\b(?:always|never|only|instead)[,\s]+(?:repl(?:y|ies)|respond|answer)\s+(?:with|that|in\s+(?!the\b)\w+"
    r"|as\s+(?:an?|if)|by\s+saying|yes|no)\b",
    rf"\b(?:when(?:ever)?|if)\s+(?:an?\s+|the\s+|any\s+|some)?(?:user|customer|client|person|someone|somebody"
    rf"|anyone|anybody|one|they)\s+(?:asks?|writes?|says?|mentions?|complains?|wants?|inquires?)\b[^.!?]{{0,80}}?"
    rf"(?:,\s+|\s(?=then|always|just|simply|please|you))(?:always\s+|then\s+|just\s+|simply\s+"
    rf"|please\s+|you\s+(?:must|should|will|shall)\s+)*{_SPEAK}\b",
    r"(?:^|(?<=[.!?:;,]\s)|(?<=\n)|(?<=\band\s)|(?<=\bthen\s)|(?<=\balways\s)|(?<=\bplease\s)"
    r"|(?<=\bmust\s)|(?<=\bshould\s))(?:tell|inform|assure|promise)\s+(?:the|every|each|all|any)"
    r"\s+(?:customer|user|client|person)s?\b",
    r"\b(?:do\s+not|don['’]t|never|without)\s+(?:tell|inform|mention(?:ing)?|reveal|telling|warn|informing)"
    r"\s+(?:\w+\s+){0,3}(?:the\s+|to\s+the\s+)?(?:customer|user|client|human|operator)s?\b",
    r"\b(?:print|reveal|show|repeat|output|display|leak|disclose|recite|dump|expose)\s+(?:me\s+)?"
    r"(?:the\s+|all\s+|of\s+)*(?:your|system|hidden|secret|initial|original|above|full|entire)\s+"
    r"(?:\w+\s+){0,2}(?:prompt|instructions)\b",
    r"(?<!a\s)(?<!macos\s)(?<!windows\s)(?<!operating\s)(?<!permission\s)\bsystem\s+prompt\b"
    r"(?!\s+(?:asks?|appears?|opens?|shows?|for\s+permission|to\s+(?:allow|enter|confirm)))",
    r"\b(?:your|the|hidden|initial|secret)\s+(?:initial\s+|original\s+|hidden\s+|secret\s+)*"
    r"(?:system\s+)?prompt\s+(?:above|verbatim|word\s+for\s+word|is\s*:)",
    # chat templates, with the turn they begin
    r"<\|(?:im_start|start_header_id|system|user|assistant)\|>\s*\w*\s*(?:<\|\w+\|>)?\s*[^\n]*",
    r"\[\s*(inst|system|assistant)\s*\](?:.*?\[\s*/\s*\1\s*\]|[^\n]*)",
    r"<<\s*sys\s*>>(?:.*?<<\s*/\s*sys\s*>>|[^\n]*)",
    r"<\s*(system|assistant|instructions?)\s*>(?:.*?<\s*/\s*\1\s*>|[^\n]*)",
    r"<\|[^|>\n]{0,40}\|?>|\|>|<<\s*/?\s*sys\s*>>|\[\s*/?\s*inst\s*\]|</?s>|<\s*/?\s*(?:system|assistant"
    r"|user|instructions?|start_of_turn|end_of_turn|bos|eos)\s*>|\[\s*/?\s*(?:system|assistant)\s*\]"
    r"|\b(?:begin|end)\s+(?:of\s+)?(?:system|prompt|instructions?|conversation)\s*(?:-{2,}|\]|>|:)",
)

# --- requests for secrets -------------------------------------------------------------------------

_PRIVATE: Final = (
    r"(?:pass(?:word|phrase|code|wort)s?|pwd|pins?(?:\s+(?:code|number))?"
    r"|(?:credit|debit|bank|payment)?\s*card\s+(?:number|details?|data|info(?:rmation)?)s?"
    r"|credit\s+cards?|cvv2?|cvc2?"
    r"|(?:security|verification|one-?\s?time|otp|sms|2fa|mfa|login|sign-?in|authenticat(?:or|ion)"
    r"|confirmation|access|recovery|backup|activation|text\s+message)[\s-]+(?:code|pin|pass(?:word|code)|token)s?"
    r"|(?:six|6|four|4)-digit\s+codes?|otps?|tans?"
    r"|(?:log-?in|sign-?in|account|bank(?:ing)?|online\s+banking|access)\s+(?:credentials?|details?|data)"
    r"|credentials|(?:private|secret|api|access)\s+(?:key|token)s?|(?:seed|recovery)\s+phrases?"
    r"|social\s+security\s+numbers?|ssn|answers?\s+to\s+your\s+security\s+questions?"
    r"|security\s+answers?|mother['’]s\s+maiden\s+name)"
)
_THEIR: Final = (
    r"(?:(?:your|their|his|her|the|a|an|any|all|both|full|complete|current|old|new|present|account"
    r"|personal|username|name|e-?mail(?:\s+address)?|number|expiry|date|id|address|user|customer|login"
    r"|banking|of|and|or|with|plus|together|as\s+well\s+as)[\s,]+){0,8}"
)
_GIVE: Final = (
    r"(?:send(?:ing)?|tell(?:ing)?|giv(?:e|ing)|e-?mail(?:ing)?|mail(?:ing)?|text(?:ing)?"
    r"|provid(?:e|ing)|shar(?:e|ing)|forward(?:ing)?|read(?:ing)?(?:\s+out)?|submit(?:ting)?"
    r"|post(?:ing)?|message|messaging|disclos(?:e|ing)|dictat(?:e|ing)|stat(?:e|ing)|name|write"
    r"|writing|hand(?:ing)?\s+over|fill(?:ing)?\s+in|upload(?:ing)?|supply(?:ing)?|confirm(?:ing)?|enter(?:ing)?|typ(?:e|ing)|past(?:e|ing)|include"
    r"|including|attach(?:ing)?|quot(?:e|ing)|leav(?:e|ing)|drop(?:ping)?)"
)
_US: Final = (
    r"(?:us|me|them|our\s+(?:\w+\s+)?\w+|the\s+caller|support(?:\s+(?:team|staff|agent|desk))?|(?:the|an?|your|any)\s+(?:\w+\s+)?"
    r"(?:agent|support|desk|team|assistant|bot|representative|employee|staff|operator|technician|advisor"
    r"|colleague)(?:\s+\w+)?)"
)
_CHANNEL: Final = (
    r"(?:(?:by|via|in|into|through|over|as|with|on|to|at|back\s+(?:by|in|to))\s+(?:an?\s+|the\s+|this\s+"
    r"|your\s+|our\s+|a\s+reply\s+|return\s+)*(?:e-?mail|chat|reply|message|ticket|sms|phone|telephone|call"
    r"|comment|conversation|response|answer|whatsapp|telegram|text(?:\s+message)?|form\s+below)|here\b|below\b)"
)

_NOT_OURS: Final = "".join(
    rf"(?<!\b{who}\s{how})"
    for who in ("we", "system", "app", "service", "bank", "it")
    for how in ("", "will\\s", "can\\s", "then\\s", "also\\s", "now\\s", "never\\s")
)
"""What sends a code to the customer asks for none."""

_SECRETS: Final = (
    # send us your password
    rf"\b{_GIVE}\s+(?:it\s+)?(?:to\s+)?{_US}\s+(?:with\s+)?(?:at\s+\S+\s+)?{_THEIR}{_PRIVATE}\b",
    # send your password to us, to support@..., in this chat
    rf"{_NOT_OURS}\b{_GIVE}\s+{_THEIR}{_PRIVATE}\b(?:(?!\bnever\b|\bnot\b|n['’]t\b)[^.!?\n]){{0,60}}?"
    rf"\s(?:(?:to|with|at)\s+(?:{_US}\b|\S+@\S+|https?://|\+?\d[\d -]{{5,}})"
    rf"|{_CHANNEL})",
    rf"\b(?:reply|respond|answer|write\s+back|come\s+back|contact\s+us|call\s+us|write\s+(?:to\s+)?us|get\s+back\s+to\s+us)"
    rf"(?:\s+\w+){{0,4}}?\s+with\s+{_THEIR}{_PRIVATE}\b",
    rf"{_NOT_OURS}\b(?:send(?:ing)?|tell(?:ing)?|text(?:ing)?|e-?mail(?:ing)?|message)\s+(?:the\s+)?(?:your|their)\s+{_THEIR}{_PRIVATE}\b"
    r"(?!\s+to\s+your)",
    rf"\b{_GIVE}\s+(?:{_US}\s+)?(?:an?\s+|the\s+)?(?:photo|picture|copy|scan|screenshot|list)\b(?:(?!\bnot\b|\bnever\b)[^.!?\n]){{0,40}}?"
    rf"\byour\s+{_THEIR}{_PRIVATE}\b",
    rf"\blet\s+(?:us|me|our\s+\w+)\s+(?:know|have|see)\s+{_THEIR}{_PRIVATE}\b",
    rf"\b(?:we|i|support|agents?|our\s+\w+|(?:customer\s+service|staff|technicians?)|the\s+(?:agent|assistant|team|desk))\s+(?:(?!never\b|not\b|hardly\b)\w+\s+)?(?:needs?|requires?|wants?"
    rf"|must\s+(?:have|know))\s+(?:to\s+know\s+)?(?:your|the\s+customer['’]s)\s+{_THEIR}{_PRIVATE}\b",
    rf"\bask(?:s|ing)?\s+(?:the\s+|every\s+|each\s+|all\s+|any\s+)?(?:customer|user|client|caller|them|people)s?"
    rf"\s+(?:for|to\s+(?:\w+\s+)?{_GIVE})\s+{_THEIR}{_PRIVATE}\b",
    rf"\bwhat(?:\s+is|['’]s)\s+your\s+(?:current\s+|old\s+|account\s+)?{_PRIVATE}\s*\?",
    rf"\bhave\s+{_THEIR}{_PRIVATE}\s+(?:ready|at\s+hand)\b",
    rf"\b(?:we|agents?|support)\s+(?:will\s+)?(?:verify|identify|check)\w*\s+you\w*\s+(?:by|with|through)\s+{_THEIR}{_PRIVATE}\b",
)
_CLAUSE: Final = re.compile(
    r"[,;:–—]|\b(?:but|then|instead|just|simply|please|so|otherwise|unless|to\s+be\s+safe)\b",
)
_ASIDE: Final = re.compile(
    r",?\s*\b(?:under\s+(?:any|no)\s+circumstances?|ever|at\s+any\s+time|of\s+course|please|even\s+if"
    r"\s+(?:asked|someone\s+asks)|by\s+(?:e-?mail|phone|chat)(?:\s+or\s+(?:e-?mail|phone|chat))?)\s*,?",
)
"""What stands between a "never" and its verb without taking it back."""
_IDIOM: Final = re.compile(
    r"\b(?:never\s+mind|no\s+(?:problem|worries|need\s+to\s+worry|doubt)|not\s+only"
    r"|(?:do\s+not|don['’]t|never)\s+(?:worry|hesitate|wait|forget|delay|panic|fail|be\s+\w+|miss))\b",
)
"""Negations of something else: "do not forget to send us ..."."""
_DENIED: Final = re.compile(
    r"\b(?:never|not|cannot|no\s+(?:one|body|employee|agent|member|reason|need|colleague)|nobody|none|neither|nor"
    r"|without|refuse\w*|avoid|stop|beware|phish\w*|scam\w*|fraud\w*|fake|suspicious|anyone\s+who|whoever"
    r"|(?:anyone|anybody|someone|somebody|(?:an?\s+|any\s+)?(?:caller|e-?mail|message|person))\s+(?:who\s+|that\s+)?"
    r"(?:asks|claims|wants|demands|requests))\b|n['’]t\b",
)

# --- code and remote content ----------------------------------------------------------------------

_HANDLER: Final = (
    r"(?:abort|blur|change|click|contextmenu|copy|cut|dblclick|drag\w*|drop|error|focus(?:in|out)?"
    r"|hashchange|input|invalid|key(?:down|press|up)|load(?:start|end)?|message|mouse\w+|paste|play"
    r"|pointer\w+|popstate|reset|resize|scroll|select|submit|toggle|touch\w+|unload|wheel"
    r"|animation\w+|transition\w+|begin|end)"
)
_SCRIPT: Final = (
    r"<\s*(script|style)\b(?:.*?<\s*/\s*\1\s*>|[^\n]*)|</\s*(?:script|style)\b",
    r"<!--(?:.*?-->|[^\n]*)",
    r"<\s*/?\s*(?:iframe|object|embed|applet|form|frame|frameset|base|meta|link|svg|math|portal|template)"
    r"(?=[\s/>])[^>]*>?",
    r"<\s*(?:input|button|video|audio|source|textarea|select|body|details|marquee|a)\s[^>]{0,500}?"
    r"(?:\bon\w+\s*=|javascript:|\bsrc\s*=)[^>]*>?",
    rf"\bon{_HANDLER}\s*=\s*[\"'`\w(]",
    r"\b(?:java|vb|live)\s?script\s*:\s*(?=[\w(/'\"%])(?<!:\s)",
    r"&#(?:x0*6a|0*106);?\s*(?:a|&#)",  # javascript: in entities
    r"\b(?:document\.(?:cookie|write|location)|window\.location|eval\s*\(|localstorage\.)",
)
_REMOTE_IMAGE: Final = (
    r"!\[[^\]]{0,500}\]\s?\(\s*<?\s*(?:https?:|//|ftp:)[^)]*\)?",
    r"!\[[^\]]{0,500}\]\s?\[[^\]]{0,200}\]",
    r"<\s*(?:img|image|picture|input)\b[^>]{0,500}?(?:src|srcset|href)\s*=\s*[\"'`]?\s*(?:https?:|//|ftp:)[^>]*>?",
    r"<\s*img\b[^>]*>?",
    r"\burl\(\s*[\"']?\s*(?:https?:|//)[^)]*\)?",
    r"\bbackground\s*=\s*[\"']?(?:https?:|//)",
)
_DATA_URL: Final = (
    r"\bdata:(?:[\w.+-]+/[\w.+-]+)?(?:;[\w=.-]+)*(?:;base64)?,\S*",
    r"\bdata:[\w.+-]+/[\w.+-]+\S*",
)


def _compiled(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.DOTALL) for pattern in patterns)


_ASSISTANT_FORMS: Final = _compiled(_ASSISTANT)
_SECRET_FORMS: Final = _compiled(_SECRETS)
_PRIVATE_FORM: Final = re.compile(rf"\b{_PRIVATE}\b")


def to_assistant(text: str) -> Iterator[Span]:
    """Words that address whoever writes the answer, and markers of a prompt."""
    folded = plain(text)
    readings = [folded]
    if _LEET_INSIDE.search(folded):
        readings += [folded.translate(letters) for letters in _LEET]
    for reading in readings:
        for pattern in _ASSISTANT_FORMS:
            yield from (match.span() for match in pattern.finditer(reading))


def asking_for_secrets(text: str) -> Iterator[Span]:
    """Requests to tell somebody a password, a card or a code, unless the sentence warns of them."""
    folded = plain(text)
    if not _PRIVATE_FORM.search(folded):
        return
    for pattern in _SECRET_FORMS:
        for match in pattern.finditer(folded):
            if not _is_denied(folded, match):
                yield match.span()


def _is_denied(text: str, match: re.Match[str]) -> bool:
    """Whether what governs the request is a negation or a warning."""
    begins = max(text.rfind(end, 0, match.start()) for end in (". ", "! ", "? ", "\n")) + 1
    before = _IDIOM.sub(" ", _ASIDE.sub(" ", text[begins : match.start()]))
    last_clause = _CLAUSE.split(before)[-1]
    return _DENIED.search(f"{last_clause} {match.group().split()[0]}") is not None


def _matching(patterns: tuple[str, ...]) -> Callable[[str], Iterator[Span]]:
    forms = _compiled(patterns)

    def found(text: str) -> Iterator[Span]:
        lower = text.lower() if text.isascii() else "".join(map(_lower, text))
        for pattern in forms:
            yield from (match.span() for match in pattern.finditer(lower))

    return found


FINDERS: Final[Mapping[QuarantineReason, Callable[[str], Iterator[Span]]]] = {
    "script": _matching(_SCRIPT),
    "data_url": _matching(_DATA_URL),
    "remote_image": _matching(_REMOTE_IMAGE),
    "assistant": to_assistant,
    "secrets": asking_for_secrets,
}
"""In order of rank: of two reasons to hold one sentence the earlier is told."""
