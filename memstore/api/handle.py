"""`Handle`: one namespace in one session, which is what every object with verbs is."""

from typing import NoReturn

from memstore.models.records import Namespace
from memstore.session import Session


class Handle:
    """A namespace in a session."""

    def __init__(self, session: Session, namespace: Namespace) -> None:
        self._session = session
        self._namespace = namespace

    def __repr__(self) -> str:
        place = f" namespace={self._namespace!r}" if self._namespace else ""
        state = " closed" if self._session.database.closed else ""
        return f"<memstore.{type(self).__name__} {self._session.database.settings.path!r}{place}{state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"A {type(self).__name__} cannot be pickled or copied, because it uses an open file: pass the path, and "
            "open the store in the other process"
        )
