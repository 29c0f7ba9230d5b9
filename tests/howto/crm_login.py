"""Log in to the CRM with OAuth2 client credentials."""

import threading
from functools import cache

from authlib.integrations.requests_client import OAuth2Session
from django.conf import settings
from requests.auth import AuthBase


class ClientCredentials(AuthBase):
    """Bear a token that all threads share: a new one before it ends, and once after a 401."""

    def __init__(self, client):
        self._client = client
        self._lock = threading.Lock()

    def __call__(self, request):
        request.headers["Authorization"] = f"Bearer {self._token()}"
        request.register_hook("response", self._once_more)
        return request

    def _token(self, refused=None):
        with self._lock:  # one thread fetches, the others wait for what it gets
            token = self._client.token
            if not token or token.is_expired(leeway=60) or token["access_token"] == refused:
                token = self._client.fetch_token(grant_type="client_credentials", timeout=5)
            return token["access_token"]

    def _once_more(self, response, **kwargs):
        if response.status_code != 401:
            return response
        response.close()
        request = response.request.copy()
        refused = request.headers["Authorization"].removeprefix("Bearer ")
        request.headers["Authorization"] = f"Bearer {self._token(refused)}"
        # Not through the session: this answer is final, whatever it is.
        return response.connection.send(request, **kwargs)


@cache
def auth():
    """Return the same object each time, for it keeps the token."""
    return ClientCredentials(
        OAuth2Session(
            settings.CRM_CLIENT_ID,
            settings.CRM_CLIENT_SECRET,
            scope="orders.write",
            token_endpoint=settings.CRM_TOKEN_URL,
        )
    )
