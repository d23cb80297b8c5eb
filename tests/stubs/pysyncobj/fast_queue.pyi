from typing import Any

class FastQueue:
    def get_nowait(self) -> tuple[bytes, Any]: ...
