# The wheel's own stub has a field named by a keyword, which no type checker can read.
from typing import Any

def __getattr__(name: str) -> Any: ...
