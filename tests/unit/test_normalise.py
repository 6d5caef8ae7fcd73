"""One spelling for each value, two for two people, and no value in any error."""

import subprocess
import sys
import traceback
import unicodedata
from collections.abc import Callable
from typing import Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byok import normalise
from byok.errors import ConfigurationError, InvalidInput


@pytest.mark.parametrize(
    ("spellings", "one"),
    [
        (["Ada@Example.COM", " ada@example.com\n", "ADA@example.com"], "ada@example.com"),
        (["ada@bücher.example", "Ada@BÜCHER.example", "ada@xn--bcher-kva.example"], "ada@bücher.example"),
        (["a\u0301da@example.com", "\u00e1da@example.com", "\u00c1DA@example.com"], "áda@example.com"),
    ],
)
def test_spellings_of_an_address_become_one(spellings: list[str], one: str) -> None:
    assert {normalise.email(spelling) for spelling in spellings} == {one}


def test_addresses_that_may_be_two_peoples_stay_two() -> None:
    addresses = [
        "ada.l@gmail.com",
        "adal@gmail.com",
        "adal+x@gmail.com",
        "straße@gmail.com",
        "strasse@gmail.com",
    ]
    assert len({normalise.email(address) for address in addresses}) == len(addresses)


@pytest.mark.parametrize(
    ("spellings", "one"),
    [
        (
            [("020 7946 0018", "GB"), ("+44 (0)20 7946-0018", "US"), ("0044 20 79460018", "DE")],
            "+442079460018",
        ),
        ([("06 698 12345", "IT"), ("+39 06 69812345", "IT")], "+390669812345"),
    ],
)
def test_spellings_of_a_phone_number_become_one(spellings: list[tuple[str, str]], one: str) -> None:
    assert {normalise.phone(*spelling) for spelling in spellings} == {one}


def test_what_unicode_holds_for_alike_becomes_one() -> None:
    spellings = ["Straße  Nr.\u00a05", "STRASSE nr. 5", " strasse nr. \uff15\n"]
    assert {normalise.text(spelling) for spelling in spellings} == {"strasse nr. 5"}
    assert normalise.text("\ufb01le") == "file"


Form = Literal["NFC", "NFD", "NFKC", "NFKD"]
Greek = st.text(
    "\u03b1\u0391\u03c9\u03c3\u03a3\u03c2\u0345\u0301\u0313\u1fb4\u1f80\u0130\u0131\u1e9e\u0327\uff21",
    max_size=8,
)


@given(st.one_of(st.text(max_size=20), Greek), st.sampled_from(get_args(Form)))
def test_normalising_twice_or_in_another_form_changes_nothing(value: str, form: Form) -> None:
    once = normalise.text(value)
    assert normalise.text(once) == once
    assert normalise.text(unicodedata.normalize(form, value)) == once


def test_normalising_each_character_twice_changes_nothing() -> None:
    for code in [*range(0xD800), *range(0xE000, 0x30000)]:
        once = normalise.text("a" + chr(code) + "a")
        assert normalise.text(once) == once, hex(code)


REFUSED = [
    (normalise.email, ("secretperson",)),
    (normalise.email, ("secretperson@",)),
    (normalise.email, ("secret person@example.com",)),
    (normalise.email, ("secretperson@nowhere.local",)),
    (normalise.email, ("Secret <secretperson@example.com>",)),
    (normalise.email, ("",)),
    (normalise.phone, ("555secret", "GB")),
    (normalise.phone, ("555", "GB")),
    (normalise.phone, ("", "GB")),
    (normalise.phone, ("+44 20 7946 0018 ext. 555", "GB")),
    (normalise.phone, ("+44 20 7946 0018 # 555", "GB")),
    (normalise.phone, ("+44 20 7946 0018 (secret)", "GB")),
    (normalise.phone, ("+1 800 secret7", "US")),
    (normalise.phone, ("020 7946 0555", "secret")),
    (normalise.phone, ("020 7946 0555", "gb")),
]


@pytest.mark.parametrize(("function", "arguments"), REFUSED)
def test_a_refusal_tells_nothing_of_the_value(
    function: Callable[..., str], arguments: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidInput) as caught:
        function(*arguments)
    told = "".join(traceback.format_exception(caught.value, chain=True)) + repr(vars(caught.value))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None, "a log may print it although it is suppressed"
    assert caught.value.remedy
    for piece in ("secret", "555"):
        assert piece not in told


@pytest.mark.parametrize(
    ("module", "call"), [("email_validator", "email('a@b.example')"), ("phonenumbers", "phone('1', 'GB')")]
)
def test_a_library_that_is_missing_is_named(module: str, call: str) -> None:
    hidden = f"import sys; sys.modules[{module!r}] = None; from byok import normalise; normalise.{call}"
    run = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=False)
    assert ConfigurationError.__name__ in run.stderr
    assert "not installed" in run.stderr
