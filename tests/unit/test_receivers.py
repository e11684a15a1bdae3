"""Where webhooks may go: what the list admits, and the ways round it that are known."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.domain.receivers import AllowList, ReceiverGuard, parse_url, private_trust
from appliance.errors import ReceiverRefused, SettingsError
from appliance.jobs.sending import receiver_guard
from appliance.settings import Settings

pytestmark = pytest.mark.anyio

LAN = ("10.2.0.0/16", "fd12:3456::/32", "crm.example.com")
EVERYTHING = ("0.0.0.0/0:*", "[::/0]:*")

METADATA = ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
NEVER = (
    *METADATA,
    "0.0.0.0",
    "0.1.2.3",
    "169.254.1.1",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "::",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.2.3.4",
    "::ffff:169.254.169.254",
    "::ffff:0:10.2.3.4",
    "64:ff9b::a02:304",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "2002:a02:304::1",
    "2001:0:a02:304::1",
    "fe80::1",
    "fe80::1%eth0",
    "fd12:3456::1%2",
    "fec0::1",
    "ff02::1",
)


class Names:
    """A name service that answers each question with the next of its answers, the last for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def guard(*entries: str, names: Names | None = None) -> ReceiverGuard:
    return ReceiverGuard(AllowList.parse(entries), names or Names(()))


async def refused(url: str, *entries: str, names: Names | None = None) -> ReceiverRefused:
    with pytest.raises(ReceiverRefused) as caught:
        await guard(*entries, names=names).admit(url)
    assert caught.value.hint
    return caught.value


# --- what is admitted -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "host", "port", "target", "authority"),
    [
        ("https://10.2.3.4/hook", "10.2.3.4", 443, "/hook", "10.2.3.4"),
        ("http://10.2.3.4", "10.2.3.4", 80, "/", "10.2.3.4"),
        ("HTTP://10.2.3.4:443/A?b=%20c", "10.2.3.4", 443, "/A?b=%20c", "10.2.3.4:443"),
        ("https://[FD12:3456:0::1]/", "fd12:3456::1", 443, "/", "[fd12:3456::1]"),
        ("http://[fd12:3456::1]:443?x", "fd12:3456::1", 443, "/?x", "[fd12:3456::1]:443"),
    ],
)
async def test_an_address_of_the_list_is_admitted(
    url: str, host: str, port: int, target: str, authority: str
) -> None:
    found = await guard(*LAN).admit(url)
    assert (found.target.host, found.target.port, found.target.target) == (host, port, target)
    assert found.target.authority == authority
    assert found.addresses == (host,)


async def test_a_name_is_admitted_by_its_addresses_all_of_which_are_kept() -> None:
    addresses = ["10.2.3.4", "10.2.3.5", "fd12:3456::7"]
    found = await guard(*LAN, names=Names(addresses)).admit("https://Hooks.corp.lan/x")
    assert found.target.host == "hooks.corp.lan"
    assert found.addresses == tuple(addresses)


async def test_a_listed_name_is_admitted_with_public_addresses_only() -> None:
    url = "https://crm.example.com/hook"
    public = Names(["93.184.215.14", "2606:2800:21f:cb07::1"])
    assert (await guard(*LAN, names=public).admit(url)).addresses[0] == "93.184.215.14"
    error = await refused(url, *LAN, names=Names(["192.168.7.7"]))
    assert "192.168.7.7" in error.hint  # says what to list
    await refused("https://other.example.com/", *LAN, names=public)
    await refused("https://a.crm.example.com/", *LAN, names=public)


async def test_what_the_hint_says_to_list_admits() -> None:
    for url, address in [
        ("https://hooks.corp.lan/", "192.168.7.7"),
        ("https://hooks.corp.lan:8443/", "192.168.7.7"),
        ("https://hooks.corp.lan:8443/", "fdaa::1"),
        ("http://127.0.0.1:9000/", "127.0.0.1"),
        ("http://[::1]:9000/", "::1"),
    ]:
        names = Names([address])
        error = await refused(url, "10.2.0.0/16:*", names=names)
        entry = error.hint.rpartition("ALLOW: ")[2].rstrip(".")
        assert (await guard(entry, names=names).admit(url)).addresses == (address,)


@pytest.mark.parametrize(
    ("entry", "admitted", "not_admitted"),
    [
        ("10.2.3.4", ["http://10.2.3.4/", "https://10.2.3.4/"], ["https://10.2.3.4:8443/"]),
        ("10.2.3.4:8443", ["https://10.2.3.4:8443/"], ["https://10.2.3.4/"]),
        ("10.2.0.0/16:*", ["https://10.2.9.9:8443/", "http://10.2.0.1:1/"], ["http://10.3.0.1/"]),
        ("[fdaa::/16]:8443", ["https://[fdaa::1]:8443/"], ["https://[fdaa::1]/"]),
        ("fdaa::1", ["https://[fdaa::1]/"], ["https://[fdaa::2]/"]),
        ("127.0.0.0/8:9000", ["http://127.0.0.1:9000/"], ["http://[::1]:9000/"]),
        (" 10.2.3.4 ", ["http://10.2.3.4/"], ["http://10.2.3.5/"]),
    ],
)
async def test_ports_and_networks(entry: str, admitted: list[str], not_admitted: list[str]) -> None:
    for url in admitted:
        assert await guard(entry).admit(url)
    for url in not_admitted:
        await refused(url, entry)


# --- what is refused ------------------------------------------------------------------------------


async def test_an_empty_list_admits_nothing_and_asks_nobody() -> None:
    names = Names(["10.2.3.4"])
    await refused("https://hooks.corp.lan/", names=names)
    await refused("https://10.2.3.4/", names=names)
    assert names.asked == []


async def test_no_name_service_is_asked_for_a_port_that_no_entry_has() -> None:
    names = Names(["10.2.3.4"])
    for port in (22, 25, 6379, 8080):
        await refused(f"http://hooks.corp.lan:{port}/", *LAN, names=names)
    assert names.asked == []


@pytest.mark.parametrize("address", NEVER)
async def test_what_never_is_a_receiver(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    await refused(f"http://{host}/latest/meta-data/", *EVERYTHING, *LAN)
    await refused("http://hooks.corp.lan/", *EVERYTHING, names=Names([address]))
    await refused("https://crm.example.com/", *LAN, names=Names([address]))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1"])
async def test_loopback_needs_an_entry_of_its_own(address: str) -> None:
    await refused("http://hooks.corp.lan/", *EVERYTHING, names=Names([address]))
    await refused("https://crm.example.com/", *LAN, names=Names([address]))
    assert await guard(address, names=Names([address])).admit("http://hooks.corp.lan/")


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0X7F.1",
        "0177.0.0.1",
        "017700000001",
        "127.1",
        "127.0.1",
        "010.2.3.4",
        "10.2.3.04",
        "10.2.3.4.",
        "10.2.772",
        "10.2.3.4.5",
        "10.2.3.256",
        "167903236",
        "0",
        "0x",
        "1.2.3.4.0x5",
        "a.1",
    ],
)
async def test_numbers_in_odd_forms(host: str) -> None:
    names = Names(["10.2.3.4"])
    await refused(f"http://{host}/", *EVERYTHING, "127.0.0.0/8:*", names=names)
    assert names.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "10.2.3.4",
        "//10.2.3.4/",
        "ftp://10.2.3.4/",
        "gopher://10.2.3.4/_GET",
        "file:///etc/passwd",
        "unix:///run/engine.sock",
        "http:10.2.3.4",
        "http:/10.2.3.4/",
        "http:///10.2.3.4/",
        "http://user@10.2.3.4/",
        "http://user:word@10.2.3.4/",
        "http://10.2.3.4@169.254.169.254/",
        "http://10.2.3.4:80@169.254.169.254/",
        "http://169.254.169.254#@10.2.3.4/",
        "http://10.2.3.4/#fragment",
        "http://10.2.3.4\\@169.254.169.254/",
        "http://169.254.169.254\\.hooks.corp.lan/",
        "http://10.2.3.4%2f@169.254.169.254/",
        "http://10.2.3.4%00.hooks.corp.lan/",
        "http://%31%30.2.3.4/",
        "http://10.2.3.4 /",
        " http://10.2.3.4/",
        "http://10.2.3.4/\n",
        "http://10.2.3.4/\r\nHost: other",
        "http://10.2.3.4/a b",
        "http://10.2.3.4/\x00",
        "ht\ntp://10.2.3.4/",
        "http://10.2.3.4:/x:y@z",
        "http://10.2.3.4:0/",
        "http://10.2.3.4:65536/",
        "http://10.2.3.4:99999/",
        "http://10.2.3.4:-1/",
        "http://10.2.3.4:8o/",
        "http://10.2.3.4:80:80/",
        "http://\uff11\uff10.2.3.4/",
        "http://\u2460\u24ea.2.3.4/",
        "http://hooks\u3002corp.lan/",
        "http://h\u00f6\u00f6ks.corp.lan/",
        "http://10.2.3.4/\u00e4",
        "http://[10.2.3.4]/",
        "http://[fd12:3456::1%25eth0]/",
        "http://[fd12:3456::1%eth0]/",
        "http://[fd12:3456::1/",
        "http://fd12:3456::1/",
        "http://[fd12:3456::1]x/",
        "http://[::ffff:a02:304]/",
        "http://[::ffff:10.2.3.4]/",
        "http://[v1.fd12]/",
        "http://[]/",
        "http:///",
        "http://./",
        "http://../",
        "http://hooks..corp.lan/",
        "http://hooks.corp.lan./",
        "http://-hooks.corp.lan/",
        "http://hooks-.corp.lan/",
        f"http://{'a' * 64}.lan/",
        f"http://{'a.' * 130}lan/",
        f"http://10.2.3.4/{'a' * 2048}",
    ],
)
async def test_urls_of_another_form(url: str) -> None:
    names = Names(["10.2.3.4"])
    await refused(url, *EVERYTHING, *LAN, names=names)
    assert names.asked == []


async def test_one_address_too_many_refuses_the_name() -> None:
    for extra in ("10.3.0.1", "127.0.0.1", "169.254.169.254", "::1", "::ffff:10.2.3.4", "8.8.8.8"):
        for addresses in (["10.2.3.4", extra], [extra, "10.2.3.4"]):
            await refused("https://hooks.corp.lan/", *LAN, names=Names(addresses))


async def test_a_name_that_means_something_else_later_is_refused_then() -> None:
    rebound = guard(*LAN, names=Names(["10.2.3.4"], ["169.254.169.254"], ["10.9.0.1"]))
    assert (await rebound.admit("https://hooks.corp.lan/")).addresses == ("10.2.3.4",)
    for _ in range(2):
        with pytest.raises(ReceiverRefused):
            await rebound.admit("https://hooks.corp.lan/")


async def test_a_name_without_addresses_or_with_nonsense() -> None:
    await refused("https://hooks.corp.lan/", *LAN, names=Names(()))
    await refused("https://hooks.corp.lan/", *LAN, names=Names(["10.2.3.4", "nonsense"]))


# --- the list -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "*",
        "*.example.com",
        "http://10.2.3.4",
        "10.2.3.4/8",
        "10.2.3.4:0",
        "10.2.3.4:65536",
        "10.2.3.4:x",
        "127.1",
        "2130706433",
        "0x7f000001",
        "[10.2.3.4]:80",
        "[fd00::1",
        "fe80::1%eth0",
        "user@host",
        "bad name",
        *(f"{address}" for address in NEVER),
        "169.254.0.0/16",
        "169.254.169.254:80",
        "ff00::/8",
    ],
)
def test_entries_that_are_none(entry: str) -> None:
    with pytest.raises(SettingsError) as caught:
        AllowList.parse([entry])
    assert "webhook_allow" in caught.value.detail
    assert caught.value.hint


async def test_the_setting_is_a_list_of_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def configured(value: str) -> ReceiverGuard:
        monkeypatch.setenv("APPLIANCE_WEBHOOK_ALLOW", value)
        return receiver_guard(Settings(data_dir=tmp_path))

    assert await configured("10.2.0.0/16, [fd00::/8]:8443").admit("https://[fd00::1]:8443/")
    assert await configured("10.2.0.0/16 127.0.0.1:*").admit("http://127.0.0.1:1/")
    with pytest.raises(ReceiverRefused):
        await configured("").admit("http://127.0.0.1/")
    with pytest.raises(SettingsError):
        configured("10.2.0.0/16 169.254.169.254")


@given(
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)),
    st.sampled_from(["10.2.0.0/16", "0.0.0.0/0", "::/0", "fd00::/8"]),
)
def test_nothing_is_admitted_that_no_entry_holds(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, entry: str
) -> None:
    target = parse_url("https://hooks.corp.lan/")
    try:
        AllowList.parse([entry]).admit(target, [str(address)])
    except ReceiverRefused:
        return
    assert address in ipaddress.ip_network(entry)
    assert not address.is_loopback
    assert not address.is_link_local
    assert not address.is_multicast
    assert not address.is_unspecified
    assert str(address) not in METADATA
    assert getattr(address, "ipv4_mapped", None) is None


@given(st.text(max_size=60))
def test_whatever_the_url_it_is_read_in_one_way_or_refused(text: str) -> None:
    for url in (text, f"http://{text}", f"http://10.2.3.4{text}", f"http://10.2.3.4/{text}"):
        try:
            target = parse_url(url)
        except ReceiverRefused:
            continue
        assert parse_url(f"{target.scheme}://{target.authority}{target.target}") == target


@given(st.text(max_size=200))
def test_what_holds_no_certificate_is_never_trusted(text: str) -> None:
    """Nor does it end in trust in the whole machine, which is what ssl makes of an empty text."""
    begin, end = "-----BEGIN CERTIFICATE-----\n", "\n-----END CERTIFICATE-----\n"
    for given_text in ("", text, begin + text, begin + text + end):
        with pytest.raises(ReceiverRefused):
            private_trust(given_text)
