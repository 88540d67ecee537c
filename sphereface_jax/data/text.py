"""What every reader of published lists shares, and the few lines that a terminal gets."""

import codecs
import os
from collections.abc import Iterable
from pathlib import Path

IN_PLAIN_LETTERS = "sphereface.in_plain_letters"
"""An error handler for encodings that lack a character: `open(..., errors=IN_PLAIN_LETTERS)`."""

_PLAIN = {
    **{"×": "x", "±": "+-", "°": " deg", "–": "-", "—": "-", "−": "-", "…": "...", "≥": ">="},
    **{"λ": "lambda", "θ": "theta", "μ": "mu", "•": "*", "‖": "||", "≤": "<=", "→": "->"},
}


def existing_file(path: str | os.PathLike[str], what: str) -> Path:
    """The path of a file that is there.

    Args:
      path: where it should be.
      what: the phrase for it in an error, such as "a list of pairs".

    Returns:
      The path.

    Raises:
      FileNotFoundError: nothing or a folder is there.
    """
    if not os.path.isfile(path):
        found = "a folder" if os.path.isdir(path) else "none"
        raise FileNotFoundError(f"{os.fspath(path)}: expected {what}, found {found}")
    return Path(path)


def existing_folder(path: str | os.PathLike[str], what: str) -> Path:
    """The path of a folder that is there.

    Args:
      path: where it should be.
      what: the phrase for it in an error, such as "a folder of images".

    Returns:
      The path.

    Raises:
      FileNotFoundError: nothing or a file is there.
    """
    if not os.path.isdir(path):
        found = "a file" if os.path.exists(path) else "nothing there"
        raise FileNotFoundError(f"{os.fspath(path)}: expected {what}, found {found}")
    return Path(path)


def read_lines(path: str | os.PathLike[str], what: str) -> list[str]:
    """The lines of a text file in UTF-8, with or without a byte order mark.

    Args:
      path: of the file.
      what: the phrase for it in an error, such as "a list of pairs".

    Returns:
      The lines, without their ends; the last is empty where the file ends in a newline.

    Raises:
      FileNotFoundError: no such file.
      ValueError: no text in UTF-8.
    """
    try:
        return existing_file(path, what).read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{os.fspath(path)}: expected text in UTF-8, found byte "
            f"{error.object[error.start]:#04x} at offset {error.start}"
        ) from None


def is_whole(field: str, digits: int = 9) -> bool:
    """Whether a field is a whole number from 0, in plain digits.

    Args:
      field: the text.
      digits: how many it may have.

    Returns:
      True for "0" and "007", False for "", "-1", "1.0" and "²".
    """
    return field.isascii() and field.isdigit() and len(field) <= digits


def first_ten(lines: Iterable[str]) -> list[str]:
    """The first ten lines, and dots where there are more."""
    listed = list(lines)
    return listed[:10] + ["  ..."] * (len(listed) > 10)


def printable(text: str, encoding: str = "utf-8") -> str:
    r"""A text as it can be written in an encoding, what it lacks in plain letters.

    A byte of a file's name that is not UTF-8, which Python holds as a lone surrogate, is written as
    `\xe9`.

    Args:
      text: any, lone surrogates included.
      encoding: such as "ascii".

    Returns:
      The text, which `encode` takes without error.

    Example:
      >>> printable("λ = 5, 12° ± 1°, Ren\udce9", "ascii")
      'lambda = 5, 12 deg +- 1 deg, Ren\\xe9'
    """
    return text.encode(encoding, IN_PLAIN_LETTERS).decode(encoding)


def _in_plain_letters(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(map(_plain, lacking)), error.end


def _plain(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return _PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode()


codecs.register_error(IN_PLAIN_LETTERS, _in_plain_letters)
