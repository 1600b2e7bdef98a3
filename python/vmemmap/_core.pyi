"""The Rust core. Not a public interface: use the modules of the package."""

from typing import Any

VERSION: str
BUILD_PROFILE: str

def layout(granule: int, va_bits: int, kernel: str, memstart: int = 0) -> dict[str, Any]: ...
def policies() -> dict[str, dict[str, str]]: ...
