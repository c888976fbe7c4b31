"""Where SQLite puts the files that it needs for a moment, a whole database's copy say."""

import os
from pathlib import Path


def scratch_beside(database: Path) -> str:
    """Return a statement that has them lie beside the database, or nothing if they cannot.

    There is room where the database lies, and users' ids are at home there; the system's own folder
    may be a small one in memory, as it is in a container. They have no names: whatever ends the
    process, nothing is left of them.
    """
    folder = database.parent
    if not os.access(folder, os.W_OK | os.X_OK):  # the system's will have to do
        return ""
    quoted = str(folder).replace("'", "''")
    return f"PRAGMA temp_store_directory = '{quoted}'"
