"""One ACME server (RFC 8555) and the ship's account there. What is here blocks: it is for threads.

A name is shown to be ours by a file that nginx serves (http-01).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event, Lock
from typing import Any

import requests
from acme import challenges, errors, messages
from acme.client import ClientNetwork, ClientV2
from acme.crypto_util import make_csr
from attrs import define, field
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.errors import Error as JoseError
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC

from proxy.certificates import write_private
from proxy.routes import ProxyError

ORDER_LIMIT = 90.0  # seconds from the order to the certificate
REQUEST_LIMIT = 15  # seconds of silence; a ship that stops waits so long at most
NONCES = 10  # refused in a row before that is an error


class AcmeError(ProxyError):
    """The authority gave no certificate; the text is its reason, in one line."""


class _Network(ClientNetwork):
    """Requests that end once they are `over`, and are repeated as long as a nonce is refused."""

    def __init__(self, key: JWK, roots: Path | None, over: Event) -> None:
        super().__init__(key, alg=ES256, user_agent="starphleet", timeout=REQUEST_LIMIT)
        self.session.trust_env = False  # no .netrc, and no settings but the ship's own
        if roots is not None:
            self.verify_ssl = str(roots)  # type: ignore[assignment]  # requests takes a file, too
        self._over = over

    def get(self, *args: Any, **kwargs: Any) -> requests.Response:
        self._go_on()
        return super().get(*args, **kwargs)

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        for _ in range(NONCES):
            self._go_on()
            try:
                return super().post(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(*args, **kwargs)

    def _go_on(self) -> None:
        if self._over.is_set():
            raise AcmeError("given up")


@define
class Authority:
    """The ACME server at the URL `server`, verified by `roots` (PEM; `None`: those of certifi).

    `key` is the file of the account's key; it is made when it is not there. The account agrees to
    the authority's terms.
    """

    server: str
    email: str
    roots: Path | None
    key: Path
    _account: messages.RegistrationResource | None = field(default=None, init=False)
    _entering: Lock = field(factory=Lock, init=False, repr=False)

    def order(self, name: str, key: bytes, files: Path, over: Event) -> bytes:
        """The chain that the authority gives for `name` and the private `key`, both PEM.

        What shows that the name is ours lies in the directory `files` meanwhile. Ends early when
        it is `over`. Raises `AcmeError`.
        """
        with self._plainly():
            client = self._client(over)
            order = client.new_order(make_csr(key, [name]))
            deadline = datetime.now() + timedelta(seconds=ORDER_LIMIT)
            with ExitStack() as stack:
                for each in order.authorizations:
                    if each.body.status != messages.STATUS_VALID:
                        stack.enter_context(_shown(client, each.body.challenges, files))
                order = client.poll_authorizations(order, deadline)
            chain: str = client.finalize_order(order, deadline).fullchain_pem
            return chain.encode()

    def _client(self, over: Event) -> ClientV2:
        with self._entering:
            network = _Network(_account_key(self.key), self.roots, over)
            client = ClientV2(ClientV2.get_directory(self.server, network), network)
            self._account = network.account = self._account or self._enter(client)
        return client

    def _enter(self, client: ClientV2) -> messages.RegistrationResource:
        if client.external_account_required():
            raise AcmeError("the authority takes only accounts that were made with it before")
        person = messages.NewRegistration.from_data(email=self.email, terms_of_service_agreed=True)
        try:
            return client.new_account(person)
        except errors.ConflictError as known:
            # The key has an account; its address may be an earlier one.
            account = messages.RegistrationResource(uri=known.location, body=person)
            return client.update_registration(account)

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        try:
            yield
        except AcmeError:
            raise
        except requests.RequestException as error:
            raise AcmeError(f"{self.server} cannot be reached: {_cause(error)}") from error
        except Exception as error:
            self._account = None  # it may be what was wrong
            raise AcmeError(plain(reason(error))) from error


def _account_key(file: Path) -> JWKEC:
    try:
        found = JWK.load(file.read_bytes())
    except FileNotFoundError:
        pem = new_key()
        write_private(file, pem)
        found = JWK.load(pem)
    except (JoseError, ValueError) as error:
        raise AcmeError(f"{file} is no private key: move it away for a new account") from error
    if not isinstance(found, JWKEC):
        raise AcmeError(f"{file} is no ECDSA key: move it away for a new account")
    return found


def new_key() -> bytes:
    """A new ECDSA P-256 key as PEM."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@contextmanager
def _shown(
    client: ClientV2, offered: Iterable[messages.ChallengeBody], files: Path
) -> Iterator[None]:
    """Lay down what the authority is to find, and tell it to look."""
    for body in offered:
        if isinstance(body.chall, challenges.HTTP01):
            break
    else:
        raise AcmeError("the authority does not offer http-01")
    assert client.net.key is not None
    response, content = body.response_and_validation(client.net.key)
    file = files / body.chall.encode("token")  # bytes in base64url: no way out of the directory
    try:
        _lay(file, content)
        client.answer_challenge(body, response)
        yield
    finally:
        file.unlink(missing_ok=True)


def _lay(file: Path, content: str) -> None:
    """For nginx's workers to read, whatever the umask; they need not list the directory."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.parent.chmod(0o711)
    file.write_text(content)
    file.chmod(0o644)


def reason(error: Exception) -> str:
    """What the authority has against an order."""
    if isinstance(error, errors.ValidationError):
        wrong = [each.error for one in error.failed_authzrs for each in one.body.challenges]
        return "; ".join(reason(each) for each in wrong if each is not None)
    if isinstance(error, errors.IssuanceError):
        return reason(error.error)
    if isinstance(error, messages.Error):
        details = [error, *(error.subproblems or ())]
        found = [each.detail for each in details if each.detail]
        return "; ".join(found) or error.description or error.typ
    if isinstance(error, errors.TimeoutError):
        return f"it came to no decision within {ORDER_LIMIT:g} s"
    return f"{type(error).__name__}: {error}"


def _cause(error: Exception) -> str:
    """What is at the bottom of an error of requests, which wraps others."""
    inner = error.args[0] if error.args else error
    return plain(str(getattr(inner, "reason", inner)))


def plain(text: str) -> str:
    """`text` from outside as part of one line: nothing that moves a terminal's cursor."""
    line = " ".join(text.split())
    return "".join(each if each.isprintable() else "?" for each in line)[:400]
