"""Messages in other languages are recognised; English is never taken for one, however it is
written."""

from __future__ import annotations

import json
import re

import pytest

from appliance.agents.escalation import reason_to_escalate
from appliance.answering import wording
from appliance.answering.translations import HANDED_OVER
from appliance.domain.passage import Article
from appliance.settings import HOME
from appliance.understanding.language import CANDIDATES, foreign_language, written_in
from tests.builders import PASSWORD, passage, query, understood

ENGLISH = frozenset({"en"})

MESSAGES = {
    "de": """
        Ich habe mein Passwort vergessen, wie kann ich es zurücksetzen?
        Wo finde ich meine letzte Rechnung?
        ich komme nicht mehr in mein konto rein
        Fehler UP-413 beim Hochladen einer Datei, was bedeutet das?
        Seit dem Update synchronisiert nichts mehr, das ist sehr ärgerlich!
        Guten Tag, könnten Sie mir bitte die Mahnung erklären?
        Habe ich ein Widerrufsrecht und wie lange gilt es?
        Mein Kollege hat keine Einladung bekommen
        das ding ist schon wieder kaputt, macht endlich was!!!
        Wie viele Geräte darf ich gleichzeitig nutzen?
    """,
    "fr": """
        J'ai oublié mon mot de passe, comment le réinitialiser ?
        je veux annuler mon abonnement
        Impossible de me connecter depuis hier matin
        Que signifie l'erreur UP-413 pendant l'envoi d'un fichier ?
        Votre service est vraiment lent, j'attends depuis trois jours.
        Bonjour, pourriez-vous m'envoyer la facture de mars ?
        comment supprimer definitivement mon compte svp
        Mon collègue n'a jamais reçu votre invitation
        Quels sont vos horaires d'ouverture ?
        Combien d'appareils puis-je utiliser en même temps ?
    """,
    "es": """
        He olvidado mi contraseña, ¿cómo puedo cambiarla?
        quiero cancelar mi suscripción
        no puedo entrar en mi cuenta
        ¿Qué significa el error UP-413 al subir un archivo?
        Llevo tres días esperando una respuesta y nadie me ayuda.
        Buenos días, necesito la factura del mes pasado
        como borro mi perfil para siempre
        Mi compañera no ha recibido la invitación
        ¿Cuál es el horario de atención al cliente?
        ¿Cuántos dispositivos puedo usar a la vez?
    """,
    "it": """
        Ho dimenticato la password, come posso reimpostarla?
        vorrei disdire il mio abbonamento
        non riesco ad accedere al mio account
        Cosa significa l'errore UP-413 durante il caricamento?
        Aspetto una risposta da tre giorni, è una vergogna.
        Buongiorno, mi serve la fattura del mese scorso
        come faccio a cancellare per sempre il mio profilo
        Il mio collega non ha ricevuto l'invito
        Quali sono gli orari del servizio clienti?
        Quanti dispositivi posso usare contemporaneamente?
    """,
    "pt": """
        Esqueci a minha senha, como posso redefini-la?
        quero cancelar a minha assinatura
        não consigo entrar na minha conta
        O que significa o erro UP-413 ao enviar um arquivo?
        Estou esperando uma resposta há três dias.
        Bom dia, preciso da fatura do mês passado
        como apago o meu perfil de vez
        Meu colega não recebeu o convite
        Qual é o horário de atendimento?
        Quantos dispositivos posso usar ao mesmo tempo?
    """,
    "nl": """
        Ik ben mijn wachtwoord vergeten, hoe kan ik het opnieuw instellen?
        ik wil mijn abonnement opzeggen
        ik kan niet meer inloggen op mijn account
        Wat betekent foutcode UP-413 bij het uploaden?
        Ik wacht al drie dagen op antwoord, dit is belachelijk.
        Goedemorgen, ik heb de factuur van vorige maand nodig
        hoe verwijder ik mijn profiel definitief
        Mijn collega heeft de uitnodiging nooit ontvangen
        Wat zijn jullie openingstijden?
        Hoeveel apparaten mag ik tegelijk gebruiken?
    """,
    "pl": """
        Zapomniałem hasła, jak mogę je zresetować?
        chcę anulować moją subskrypcję
        nie moge zalogowac sie na swoje konto
        Co oznacza błąd UP-413 przy wysyłaniu pliku?
        Czekam na odpowiedź od trzech dni.
        Dzień dobry, potrzebuję faktury za zeszły miesiąc
        jak usunac moj profil na zawsze
        Mój kolega nie dostał zaproszenia
        W jakich godzinach działa obsługa klienta?
        Na ilu urządzeniach mogę korzystać jednocześnie?
    """,
    "tr": """
        Şifremi unuttum, nasıl sıfırlayabilirim?
        aboneliğimi iptal etmek istiyorum
        hesabıma bir türlü giriş yapamıyorum
        Dosya yüklerken UP-413 hatası ne anlama geliyor?
        Üç gündür cevap bekliyorum, kimse yardım etmiyor.
        Merhaba, geçen ayın faturasına ihtiyacım var
        profilimi tamamen nasil silerim
        Arkadaşım daveti hiç almadı
        Müşteri hizmetleri hangi saatlerde açık?
        Aynı anda kaç cihaz kullanabilirim?
    """,
    "ru": """
        Я забыл пароль, как его сбросить?
        хочу отменить свою подписку
        не могу войти в свой аккаунт
        Что означает ошибка UP-413 при загрузке файла?
        Жду ответа уже три дня, это безобразие.
        Добрый день, мне нужен счёт за прошлый месяц
        как удалить профиль навсегда
        Мой коллега не получил приглашение
        В какие часы работает служба поддержки?
        На скольких устройствах можно работать одновременно?
    """,
    "ar": """
        نسيت كلمة المرور، كيف يمكنني إعادة تعيينها؟
        أريد إلغاء اشتراكي من فضلكم
        لا أستطيع تسجيل الدخول إلى حسابي
        ماذا يعني الخطأ UP-413 عند رفع ملف؟
        أنتظر الرد منذ ثلاثة أيام ولا أحد يساعدني.
        صباح الخير، أحتاج فاتورة الشهر الماضي
        كيف أحذف حسابي نهائيا
        زميلي لم يستلم الدعوة حتى الآن
        ما هي ساعات عمل خدمة العملاء؟
        كم جهازا يمكنني استخدامه في نفس الوقت؟
    """,
    "zh": """
        我忘记了密码,怎么重置?
        我想取消我的订阅
        我无法登录我的账户
        上传文件时出现 UP-413 错误是什么意思?
        我已经等了三天了,没有人回复我。
        早上好,我需要上个月的发票
        怎样永久删除我的个人资料
        我的同事没有收到邀请
        客服的工作时间是几点到几点?
        我可以同时使用多少台设备?
    """,
}
FOREIGN = [
    (code, line.strip()) for code, lines in MESSAGES.items() for line in lines.strip().split("\n")
]

PLAIN_ENGLISH = """
    UP-413 wtf
    forgot my pasword
    PIN change
    ok
    k thx
    👍👍👍
    🎉🎉 yay 🎉🎉
    hello? anybody here
    NL-1002 NL-1007 INS-17
    lorem ipsum
    asdkjfh askdjh asdf qwer
    haha lol omg rofl
    Northleaf Workspace Starter plan
    Maria García
    Jean-Pierre Dupont, Łukasz Żółty, Jürgen Müller, Søren Ødegård
    privacy policy link
    unfair cancelation charge
    no refund no service
    Siya Kolisi Ahmed Hassan Nguyen
    invoice invoice invoice invoice
    pls fix asap
    where do i chang adress
    wont let me log in
    Whats teh status of ordr 12345
    app crash android samsung galaxy
    error error error E-401
    CSV import UTF-8 DOCX XLSX ODT
    SSO SAML Okta Azure AD setup
    password reset link expired again
    refund status update needed urgently
    cant login two days now
    Bye bye Hanoi
    Wi-Fi VPN DNS DHCP issue
    ABCD-1234-EFGH-5678 key invalid
    support@northleaf.example https://northleaf.example/login
    Happy 4th of July!
    My résumé and café menu will not open
    Where is Straße 5 in your address form?
    How do I type naïve façade in the editor?
    no no no no no
    a b c d e f
    ＜ada＠example。com＞ or Ｈｅｌｌｏ ｔｈｅｒｅ
    desktop app v6.2 macOS Sonoma
    billing@acme.example billing@acme.example
    The word Привет shows as question marks in my document
    Can I use 中文 in file names?
""".strip().split("\n")
PLAIN_ENGLISH = [line.strip() for line in PLAIN_ENGLISH]

MIXED_BUT_ENGLISH = [
    "Hola, I would like to know how I can get a copy of my last invoice. Gracias",
    "Guten Tag, please tell me when the refund will arrive.\n\nMit freundlichen Grüßen\nJürgen",
    "Bonjour! My colleague cannot open the shared folder since Monday. Merci beaucoup, Élodie",
    "Hi, our office in München gets the message 'Datei nicht gefunden' when we export. Why?",
    "Dear team, the invoice says Rechnung Nr. 2041. Could you send it in English?",
    "Ciao, can't log in since the update, what should I do? Grazie mille",
    "Здравствуйте, how do I add a second user to my workspace?",
    "您好, I want to cancel the subscription for our team before the end of the month.",
]


def test_messages_in_other_languages_are_recognised() -> None:
    assert len(MESSAGES) == 11
    assert min(len(lines.strip().split("\n")) for lines in MESSAGES.values()) >= 8
    found = [foreign_language(text, ENGLISH) == code for code, text in FOREIGN]
    assert sum(found) >= 0.95 * len(found), [
        text for right, (_, text) in zip(found, FOREIGN, strict=True) if not right
    ]


@pytest.mark.parametrize("text", PLAIN_ENGLISH + MIXED_BUT_ENGLISH)
def test_english_is_english_however_it_is_written(text: str) -> None:
    assert foreign_language(text, ENGLISH) is None


def test_no_example_and_no_article_is_taken_for_another_language() -> None:
    texts = [
        json.loads(line)["text"]
        for name in ("examples.jsonl", "golden.jsonl")
        for line in (HOME / "kb" / name).read_text("utf-8").splitlines()
    ]
    for entry in json.loads((HOME / "kb" / "faqs.json").read_text("utf-8"))["faqs"]:
        texts += [entry["question"], entry["answer"]]
    assert len(texts) > 1_000
    assert [text for text in texts if foreign_language(text, ENGLISH)] == []


@pytest.mark.parametrize(("code", "text"), FOREIGN[::10])
def test_a_language_that_is_read_is_not_foreign(code: str, text: str) -> None:
    assert foreign_language(text, ENGLISH) == code
    assert foreign_language(text, {"en", code}) is None
    assert foreign_language(text, ()) is None


def test_english_is_foreign_to_a_desk_that_does_not_read_it() -> None:
    text = "Where can I find the invoice of last month?"
    assert foreign_language(text, {"de"}) == "en"


@pytest.mark.parametrize("text", ["", " ", "?!", "1234567890", "[password]", "я", "x" * 8_000])
def test_what_holds_no_language_is_none(text: str) -> None:
    assert foreign_language(text, ENGLISH) is None


def test_the_handoff_says_it_in_the_customers_language_too() -> None:
    assert set(HANDED_OVER) == set(MESSAGES) <= set(CANDIDATES)
    for code, told in HANDED_OVER.items():
        text = wording.handoff("language", "CASE-1234ABCD", (), code)
        english, own = text.split("\n\n")
        assert english == wording.handoff("language", "CASE-1234ABCD", ())
        assert own == told.format(reference="CASE-1234ABCD")
        assert text.count("CASE-1234ABCD") == 2
        assert foreign_language(re.sub(r"CASE-\w+", "", own), ENGLISH) == code
    assert "{" not in wording.handoff("language", "CASE-1234ABCD", (), "fi")


GERMAN = Article(
    "7",
    "Wie setze ich mein Passwort zurück?",
    "Das Passwort wird über den Link auf der Anmeldeseite zurückgesetzt. Der Link gilt 60 Minuten.",
    "Account",
)


def test_only_a_message_that_no_article_speaks_the_language_of_is_handed_over() -> None:
    asked = query(FOREIGN[0][1])
    unread = {**understood(asked, [passage(PASSWORD)]), "language": "de"}
    assert reason_to_escalate(unread, 3, 1) == "language"  # type: ignore[arg-type]
    served = {**understood(asked, [passage(PASSWORD), passage(GERMAN)]), "language": "de"}
    assert reason_to_escalate(served, 3, 1) is None  # type: ignore[arg-type]
    assert reason_to_escalate(understood(query(), [passage(PASSWORD)]), 3, 1) is None


def test_an_article_is_in_the_language_it_is_written_in() -> None:
    assert written_in(GERMAN.answer, "de")
    assert written_in(PASSWORD.answer, "en")
    assert not written_in(PASSWORD.answer, "de")
