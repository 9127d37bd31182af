"""What boto3 raises, sorted by who has to act."""

import re
from typing import NoReturn

import botocore.exceptions as boto_errors
from urllib3.exceptions import HTTPError

from dgasr.errors import ChangedDuringReadError, ConfigError, ObjectError, ObjectMissingError, TransientError

S3_ERRORS = (boto_errors.BotoCoreError, boto_errors.ClientError, HTTPError)
"""Everything that a call may raise; `HTTPError` comes from reading a body."""

CONFIG_CODES = (
    "NoSuchBucket", "InvalidBucketName", "PermanentRedirect", "AuthorizationHeaderMalformed", "NotImplemented",
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "ExpiredTokenException",
    "TokenRefreshRequired", "RequestExpired", "RequestTimeTooSkewed",
)  # fmt: skip
REMEDY = "Check the bucket's name and the credentials."
REMEDIES = {
    "NotImplemented": "The lake needs a store that knows conditional PUT, such as Amazon S3, MinIO or Ceph.",
    "RequestTimeTooSkewed": "Set this machine's clock, for example with chrony.",
    "ExpiredToken": "Renew the credentials, or use a role that renews them, and run again.",
    "PermanentRedirect": "Set AWS_DEFAULT_REGION to the bucket's region.",
}
"""What to do, by code, where the bucket's name and the credentials are not to blame."""

MISSING_CODES = ("NoSuchKey", "404", "NotFound")
CHANGED_CODES = ("PreconditionFailed", "412", "InvalidRange", "416")
PASSING_CODES = ("SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequestsException")
PASSING_STATUS = (408, 409, 425, 429)
SECRET_IN_URL = re.compile(r"//[^/@\s]*@")
"""User and password in the URL of an endpoint, which boto3 quotes in its messages."""

DENIED_CODES = ("AccessDenied", "403", "AllAccessDisabled")


def error_code(error: Exception) -> str:
    """Return S3's code for an error; empty where the service did not answer at all."""
    return str(error.response["Error"].get("Code", "")) if isinstance(error, boto_errors.ClientError) else ""


def raise_translated(error: Exception, uri: str) -> NoReturn:
    """Raise an error of boto3 as one that says who acts.

    Raises:
        ConfigError: wrong bucket, credentials or request.
        ObjectError: this object is missing, changed or withheld.
        TransientError: the service is busy, failing or out of reach.
    """
    if isinstance(error, boto_errors.ClientError):
        raise _of_response(error, uri) from error
    text = SECRET_IN_URL.sub("//", str(error))
    if isinstance(error, boto_errors.ParamValidationError):
        raise ConfigError(f"{uri}: cannot be the name of an object in S3. Write s3://bucket/prefix.") from error
    if isinstance(
        error,
        boto_errors.NoCredentialsError
        | boto_errors.PartialCredentialsError
        | boto_errors.CredentialRetrievalError
        | boto_errors.SSLError
        | boto_errors.UnauthorizedSSOTokenError,
    ):
        raise ConfigError(f"{uri}: S3 refuses the request ({text}). Set AWS_* variables or ~/.aws/config.") from error
    raise TransientError(f"{uri}: S3 does not answer ({text}). Try again later, or check AWS_ENDPOINT_URL.") from error


def _of_response(error: boto_errors.ClientError, uri: str) -> Exception:
    code = error_code(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in CONFIG_CODES:
        return ConfigError(f"{uri}: S3 refuses the request ({code}). {REMEDIES.get(code, REMEDY)}")
    if code in MISSING_CODES:
        return ObjectMissingError(f"{uri}: there is no such object. Check the key, or list the prefix again.")
    if code in CHANGED_CODES:
        return ChangedDuringReadError(f"{uri}: was replaced while it was read. Run again: it is a new version.")
    if status >= 500 or status in PASSING_STATUS or code in PASSING_CODES:
        return TransientError(f"{uri}: S3 is busy or failing ({code}, status {status}). Try again later.")
    return ObjectError(f"{uri}: S3 does not give it ({code}, status {status}). Check the permissions of this object.")
