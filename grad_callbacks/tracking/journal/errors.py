"""What an error of a request says: is the server out of reach, or can a value not be stored?"""

from __future__ import annotations

import json
import re
from enum import Enum

from mlflow.exceptions import MlflowException, RestException
from requests import RequestException

from grad_callbacks.tracking.store import StoreError

# MLflow's words for values that it cannot take. Its word for an error of the database, BAD_REQUEST, is not among them.
_REFUSALS = frozenset({"INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"})
_HTTP = re.compile(r"(?:failed with error code|too many) (\d{3})\b")  # in MLflow's message if an answer is no JSON
_TOO_LARGE = 413


class Verdict(Enum):
    """What an error of a request says.

    ===========  ===========================================================================================
    OUTAGE       the server does not answer, or somebody else does: a proxy, a login page. Try again later
    REFUSED      MLflow itself says that a value can never be stored
    TOO_LARGE    the request is too large: send less at once
    UNCLEAR      an error that one value may have caused: find out by sending less at once
    ===========  ===========================================================================================
    """

    OUTAGE = "outage"
    REFUSED = "refused"
    TOO_LARGE = "too large"
    UNCLEAR = "unclear"


def judge(error: Exception) -> Verdict:
    """Return what an error of a request says."""
    if isinstance(error, MlflowException):
        return _judge_answer(error)
    if isinstance(error, (RequestException, json.JSONDecodeError, OSError, StoreError, ImportError, MemoryError)):
        return Verdict.OUTAGE
    if isinstance(error, (ValueError, TypeError, OverflowError)):  # of protobuf, and of converting values
        return Verdict.REFUSED
    return Verdict.UNCLEAR


def _judge_answer(error: MlflowException) -> Verdict:
    status = status_code(error)
    if status == _TOO_LARGE:
        return Verdict.TOO_LARGE
    if _is_no_answer(error):
        return Verdict.UNCLEAR if status in (400, 500) and _HTTP.search(str(error)) else Verdict.OUTAGE
    if error.error_code in _REFUSALS and (not isinstance(error, RestException) or "error_code" in error.json):
        return Verdict.REFUSED
    return Verdict.UNCLEAR if status in (400, 500) else Verdict.OUTAGE


def is_missing(error: Exception) -> bool:
    """True if MLflow itself says that there is no such thing: a page of somebody else's is no proof."""
    return (
        isinstance(error, MlflowException)
        and error.error_code == "RESOURCE_DOES_NOT_EXIST"
        and not _is_no_answer(error)
        and status_code(error) == 404
    )


def is_forbidden(error: Exception) -> bool:
    """True if the server knows the user, who may not do this."""
    return isinstance(error, MlflowException) and status_code(error) == 403


def status_code(error: MlflowException) -> int:
    """Return the HTTP status of an error."""
    found = _HTTP.search(str(error)) if _is_no_answer(error) else None
    return int(found[1]) if found else int(error.get_http_status_code())


def is_of_server(error: Exception) -> bool:
    """True if the error says something about the server and not about one run: further requests would fail as well."""
    if isinstance(error, MlflowException):
        status = status_code(error)
        return status in (401, 407, 429) or status >= 500 or 300 <= status < 400 or _is_no_answer(error)
    return judge(error) is Verdict.OUTAGE


def _is_no_answer(error: MlflowException) -> bool:
    """True if no answer of MLflow came: none at all, or something that is not JSON."""
    return not isinstance(error, RestException) and str(error).startswith("API request")
