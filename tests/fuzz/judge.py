"""What may happen to an input, and nothing else."""

import io
from collections import Counter
from collections.abc import Callable

from byok.core.segments import MalformedStream, parse_header
from byok.core.wire import MalformedToken, format_token, parse_token
from byok.errors import CannotDecrypt
from tests.fuzz.corpus import Corpus
from tests.fuzz.inputs import Input


class Wrong(AssertionError):
    """What must not happen, with the input."""

    def __init__(self, what: str, given: Input) -> None:
        shown = f"cipher {given.cipher}, context {given.context.hex()}, input {given.data.hex() or '(empty)'}"
        super().__init__(f"{what}\n{shown}")


class Judge:
    """Runs inputs through the parsers, `Cipher.decrypt` and the stream reader, and counts by class."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.counts: Counter[tuple[str, str]] = Counter()
        for one in corpus.tokens + corpus.streams:  # warm, as they are when an attacker comes
            self.check(Input(one.cipher, one.data, one.context, 100))

    def check(self, given: Input) -> None:
        """Check one input.

        Raises:
            Wrong: anything but CannotDecrypt, or the plaintext of these very bytes under their context.
        """
        self._check_parsing(given)
        made = self.corpus.made.get((given.cipher, given.data))
        is_right = made is not None and made.context == given.context
        is_stream = made is not None and given.data[:1] == b"\x02"
        self._check_opening(
            "token", given, made.plaintext if made and is_right and not is_stream else None, self._open_token
        )
        self._check_opening(
            "stream", given, made.plaintext if made and is_right and is_stream else None, self._open_stream
        )

    def _check_parsing(self, given: Input) -> None:
        data = given.data
        is_token = len(data) >= 45 and data[0] == 1 and any(data[1:5])
        try:
            parsed = parse_token(data)
        except MalformedToken:
            if is_token:
                raise Wrong("a token was not parsed", given) from None
        except Exception as error:
            raise Wrong(f"parse_token raised {error!r}", given) from error
        else:
            if not is_token or format_token(*parsed) != data:
                raise Wrong("what is no token was parsed", given)

    def _check_opening(
        self, kind: str, given: Input, expected: bytes | None, open_: Callable[[Input], bytes]
    ) -> None:
        try:
            plaintext = open_(given)
        except CannotDecrypt as refusal:
            if expected is not None:
                raise Wrong(f"a valid {kind} was refused", given) from None
            told = (refusal.message, refusal.__cause__, refusal.__suppress_context__)
            if told != ("the ciphertext does not open", None, True):
                raise Wrong(f"a refusal told more than the others: {told}", given) from None
            self.counts[kind, self._class_of(kind, given)] += 1
            return
        except Wrong:
            raise
        except Exception as error:
            raise Wrong(f"a {kind} raised {error!r}", given) from error
        if expected is None:
            raise Wrong(f"a {kind} that nobody made was opened", given)
        if plaintext != expected:
            raise Wrong(f"a {kind} opened to something else", given)
        self.counts[kind, "opened"] += 1

    def _open_token(self, given: Input) -> bytes:
        return self.corpus.ciphers[given.cipher].decrypt(given.data, context=given.context)

    def _open_stream(self, given: Input) -> bytes:
        reader = self.corpus.ciphers[given.cipher].decrypting_reader(
            io.BytesIO(given.data), context=given.context
        )
        plaintext = b""
        try:
            while read := reader.read(given.read_size):
                plaintext += read
        except CannotDecrypt:
            self._check_beginning(given, plaintext)
            raise
        return plaintext

    def _check_beginning(self, given: Input, plaintext: bytes) -> None:
        """What was handed out before a refusal is the beginning of the stream that has this header."""
        if not plaintext:
            return
        made = self.corpus.by_header.get((given.cipher, given.data[:45]))
        if made is None or made.context != given.context or not made.plaintext.startswith(plaintext):
            raise Wrong("plaintext that nobody made was handed out", given)
        self.counts["stream", "refused after a true beginning"] += 1

    def _class_of(self, kind: str, given: Input) -> str:
        """Why it was refused, which the refusal does not tell."""
        try:
            number = (
                parse_token(given.data).version_number
                if kind == "token"
                else parse_header(given.data[:45]).version_number
            )
        except (MalformedToken, MalformedStream) as error:
            return str(error)
        return "not authentic" if number in self.corpus.versions else "unknown version"
