"""One spelling for each value, before it is encrypted or searched for: a blind index knows no likeness.

What is made here is part of every index made of it: another spelling, by another library or version, finds
nothing that was stored before. E-mail addresses and phone numbers need the extra ``byok[search]``.

No error tells the value, nor carries one that does. Nothing is left out silently by which two people could
become one: dots and ``+tags`` of an address stay, and a phone number with an extension or letters is refused.
"""

import unicodedata

from byok.errors import ConfigurationError, InvalidInput

_INSTALL = "pip install 'byok[search]'"


def text(value: str) -> str:
    """Fold case and Unicode's compatibility variants (NFKC), and make each run of white space one space."""
    folded = unicodedata.normalize("NFKC", value).casefold()  # which can undo the normalisation: again
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def email(value: str) -> str:
    """An address in small letters, its domain in Unicode.

    Small letters: no mail provider in use tells ``Ada@`` from ``ada@``, and people write both. Whether the
    address is deliverable is not asked; domains that never are (``.local``, ``.test``) are refused.

    Raises:
        InvalidInput: not an address, or one with a quoted local part, an IP address or a display name.
        ConfigurationError: the library is not installed.
    """
    try:
        from email_validator import EmailNotValidError, validate_email
    except ImportError:
        raise ConfigurationError("email-validator is not installed", remedy=_INSTALL) from None
    try:
        found = validate_email(value.strip(), check_deliverability=False)
    except EmailNotValidError:
        found = None
    if found is None:  # raised here, where no exception that quotes the address is its context
        raise InvalidInput("the text is not an e-mail address", remedy="it reads name@example.com")
    return unicodedata.normalize("NFC", f"{found.local_part.lower()}@{found.domain}")


def phone(value: str, region: str) -> str:
    """A phone number in E.164, such as ``+442079460018``.

    ``region`` is the country whose national spelling is meant where the number has no country code: two
    capital letters (ISO 3166), such as ``"GB"``. Numbers must be possible, not in use: which are in use
    changes.

    Raises:
        InvalidInput: not a number, one with letters (whatever follows a number would become digits) or an
            extension (E.164 has none), or an unknown region.
        ConfigurationError: the library is not installed.
    """
    try:
        import phonenumbers
    except ImportError:
        raise ConfigurationError("phonenumbers is not installed", remedy=_INSTALL) from None
    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise InvalidInput("the region is unknown", remedy="two capital letters, such as GB")
    if any(character.isalpha() for character in value):
        raise InvalidInput("the phone number has letters", remedy="write digits only")
    try:
        found = phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException:
        found = None
    if found is None or not phonenumbers.is_possible_number(found):
        raise InvalidInput(
            f"the text is no phone number, nor one of {region}", remedy="begin with + and the country code"
        )
    if found.extension:
        raise InvalidInput("the phone number has an extension", remedy="keep the extension apart")
    return phonenumbers.format_number(found, phonenumbers.PhoneNumberFormat.E164)
