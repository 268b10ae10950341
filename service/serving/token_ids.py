"""Token ids of OpenAI's vocabularies, which some clients send instead of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from models.errors import BadTokens
from service.config import Settings
from service.errors import ConfigError

OpenAIVocabulary = Literal["cl100k_base", "o200k_base"]
_URL = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
_SHA256: dict[OpenAIVocabulary, str] = {
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}


class TokenDecoder:
    """Turns ids of one of OpenAI's vocabularies back into texts.

    `file` is the vocabulary's `.tiktoken` file; without it, tiktoken takes it from its cache or downloads it.
    Raises ConfigError for a file that cannot be read or is another one.
    """

    def __init__(self, name: OpenAIVocabulary, file: str = "") -> None:
        self._name = name
        self._bytes = {rank: token for token, rank in _load(name, file).items()}

    @classmethod
    def of(cls, settings: Settings) -> TokenDecoder | None:
        """The decoder that the settings ask for, if any. Raises ConfigError."""
        name = settings.token_ids
        if name != "refuse" and name != "model":
            return cls(name, settings.token_ids_file)
        if settings.token_ids_file:
            raise ConfigError(
                "--token-ids-file goes with --token-ids cl100k_base or o200k_base", param="token_ids_file"
            )
        return None

    def decode(self, ids: Sequence[int], param: str) -> str:
        """The text of `ids`; a character that a client cut in two becomes U+FFFD.

        Raises BadTokens for an id that the vocabulary does not have.
        """
        try:
            return b"".join([self._bytes[one] for one in ids]).decode("utf-8", errors="replace")
        except KeyError as error:
            raise BadTokens(f"{param}: {error} is no token id of {self._name}", param=param) from None


def _load(name: OpenAIVocabulary, file: str) -> dict[bytes, int]:
    try:
        from tiktoken.load import check_hash, load_tiktoken_bpe
    except ImportError:
        raise ConfigError(
            f"--token-ids {name} needs tiktoken: pip install 'sonde[tiktoken]'", param="token_ids"
        ) from None
    url, expected = _URL.format(name), _SHA256[name]
    try:
        # tiktoken itself checks a file only when it fills its cache.
        if file and not check_hash(Path(file).read_bytes(), expected):
            raise ValueError("another SHA-256")
        ranks: dict[bytes, int] = load_tiktoken_bpe(file or url, expected_hash=expected)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--token-ids {name}: {file or url} is not its vocabulary ({error}): download {url}, and name the file"
            " with --token-ids-file",
            param="token_ids",
        ) from error
    return ranks
