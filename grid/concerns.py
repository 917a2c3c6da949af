"""What a user should know of the grid for as long as it lasts: said when it is news, once."""

from grid.effects import ClientEffect, Concern, Warn


class Concerns:
    """The present concerns, each with the text that was last said of it."""

    def __init__(self) -> None:
        self._said: dict[Concern, str] = {}

    def text(self, kind: Concern) -> str:
        return self._said.get(kind, "")

    def tell(self, kind: Concern, text: str) -> list[ClientEffect]:
        """Say it if it is news; without text, that it is over."""
        if self.text(kind) == text:
            return []
        self._said[kind] = text
        return [Warn(kind, text)]
