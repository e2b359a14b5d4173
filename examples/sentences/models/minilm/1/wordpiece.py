"""BERT's uncased tokenizer: words and punctuation, lower case, no accents; then the longest pieces known."""

import unicodedata
from pathlib import Path

LONGEST_WORD = 100
PIECES = 256  # of a text that the model reads, both marks included (sentence_bert_config.json)


class WordPiece:
    def __init__(self, vocabulary: Path):
        lines = vocabulary.read_text(encoding="utf-8").splitlines()
        self.ids = {piece: index for index, piece in enumerate(lines)}
        self.begin, self.end, self.unknown = (self.ids[mark] for mark in ("[CLS]", "[SEP]", "[UNK]"))

    def encode(self, text: str) -> list[int]:
        found = [piece for word in words(text) for piece in self.pieces(word)]
        return [self.begin, *found[: PIECES - 2], self.end]

    def pieces(self, word: str) -> list[int]:
        """The longest known piece from the left, again and again; a word that cannot be cut so is unknown."""
        if len(word) > LONGEST_WORD:
            return [self.unknown]
        found, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = self.ids.get(("##" if start else "") + word[start:end])
                if piece is not None:
                    break
            else:
                return [self.unknown]
            found.append(piece)
            start = end
        return found


def words(text: str) -> list[str]:
    cleaned = []
    for character in unicodedata.normalize("NFD", text.lower()):
        kind = unicodedata.category(character)
        if (
            kind == "Mn"
            or (kind in ("Cc", "Cf", "Co") and character not in "\t\n\r")
            or character == "\ufffd"
        ):
            continue
        apart = is_punctuation(character, kind) or is_chinese(character)
        cleaned.append(f" {character} " if apart else character)
    return "".join(cleaned).split()


def is_punctuation(character: str, kind: str) -> bool:
    return kind[0] == "P" or (
        character.isascii() and character.isprintable() and not character.isalnum() and character != " "
    )


def is_chinese(character: str) -> bool:
    code = ord(character)
    blocks = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))
    return any(low <= code <= high for low, high in blocks)
