"""TorchServe's addresses among the settings: what can be none is refused at the start. Pure."""

from urllib.parse import urlsplit

from state_service.settings import ENVIRONMENT_PREFIX, Settings, SettingsError

_NAMES = ("torchserve_url", "torchserve_public_url", "management_url")


def check_addresses(settings: Settings) -> None:
    """Raise `SettingsError` for an address that no request can be sent to; it says what to write.

    >>> check_addresses(Settings(torchserve_url="localhost:8080"))
    Traceback (most recent call last):
    state_service.settings.SettingsError: STATE_TORCHSERVE_URL (torchserve_url): it must begin \
with http:// or https://: write http://localhost:8080
    """
    for name in _NAMES:
        address = getattr(settings, name)
        if address and (fault := _fault(address)):
            raise SettingsError(f"{ENVIRONMENT_PREFIX}{name.upper()} ({name}): {fault}")


def _fault(address: str) -> str | None:
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port  # raise for what is no host, no port
    except ValueError as error:
        return f"{error}: write an address such as http://localhost:8080"
    if parts.scheme not in {"http", "https"}:
        instead = "an address such as http://localhost:8080"
        if "://" not in address and _fault(f"http://{address}") is None:
            instead = f"http://{address}"
        return f"it must begin with http:// or https://: write {instead}"
    if not host or any(character.isspace() for character in address):
        return "there is no host in it: write an address such as http://localhost:8080"
    if parts.query or parts.fragment:
        return f"leave out what follows {'?' if parts.query else '#'}"
    return None
