"""AWS KMS: authorisation, key states and the operations that byok and its customers use.

Cryptographic and describing operations are answered here; administrative ones are let through to moto
after authorisation.
"""

import base64
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.kms.models import Grant, Key, kms_backends

from byok.simulator.errors import AwsError, access_denied
from byok.simulator.identity import Principal, find_role
from byok.simulator.keys import KeyStore
from byok.simulator.policy import Decision, Question, allows_by_name, evaluate
from byok.simulator.propagation import Propagation

# "Cross-account use: Yes" in the API reference, of what byok could want.
CROSS_ACCOUNT = frozenset(
    {"GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "Encrypt", "Decrypt", "DescribeKey"}
    | {"ReEncryptFrom", "ReEncryptTo"}
    | {"GetKeyRotationStatus", "CreateGrant", "ListGrants", "RevokeGrant", "RetireGrant"}
)
_CRYPTO = frozenset({"GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "Encrypt", "Decrypt", "ReEncrypt"})
_NO_RESOURCE = (
    "because the resource does not exist in this Region, no resource-based policies allow access, "
    "or a resource-based policy explicitly denies access"
)
_NOT_WHILE_PENDING = frozenset(
    {"EnableKey", "DisableKey", "ScheduleKeyDeletion", "EnableKeyRotation", "DisableKeyRotation"}
    | {"RotateKeyOnDemand", "CreateGrant"}
)
_DRY_RUN = _CRYPTO | {"CreateGrant", "RetireGrant", "RevokeGrant"}
# moto looks these up by bare id only.
_BY_BARE_ID = frozenset({"DisableKey", "EnableKey", "ScheduleKeyDeletion", "CancelKeyDeletion"})
MUTATING = frozenset(
    {"CreateKey", "PutKeyPolicy", "EnableKeyRotation", "DisableKeyRotation", "RotateKeyOnDemand"}
    | {"TagResource", "UntagResource", "CreateAlias", "UpdateAlias", "DeleteAlias", "UpdateKeyDescription"}
    | _BY_BARE_ID
)
_MAX_PLAINTEXT_BYTES = 4096  # of Encrypt, in the API reference

Parameters = dict[str, Any]


class Kms:
    """Answers KMS requests. ``handle`` returns None where moto is to answer the adjusted parameters."""

    def __init__(self, keys: KeyStore, propagation: Propagation, now: Callable[[], datetime]) -> None:
        self.keys = keys
        self._propagation = propagation
        self._now = now
        self._operations: dict[str, Callable[[Key, Parameters], dict[str, Any]]] = {
            "GenerateDataKey": self._generate_data_key,
            "GenerateDataKeyWithoutPlaintext": self._generate_without_plaintext,
            "Encrypt": self._encrypt,
            "Decrypt": self._decrypt,
            "DescribeKey": self._describe_key,
            "GetKeyRotationStatus": self._rotation_status,
            "RotateKeyOnDemand": self._rotate,
        }

    def handle(
        self, operation: str, parameters: Parameters, principal: Principal, region: str
    ) -> tuple[dict[str, Any] | None, Key | None]:
        """Authorise and answer one request; also return the key that it is about.

        Raises:
            AwsError.
        """
        if operation == "ReEncrypt":
            return self._re_encrypt(parameters, principal, region)
        named = parameters.get("KeyId") or parameters.get("TargetKeyId")
        if named is None and operation == "Decrypt":
            named = base64.b64decode(parameters.get("CiphertextBlob", ""))[:36].decode("ascii", "replace")
        if named is None:
            if not principal.is_admin:
                raise access_denied(principal.arn, f"kms:{operation}", "*")
            if operation == "CreateKey":  # moto knows no default for these
                parameters.setdefault("KeyUsage", "ENCRYPT_DECRYPT")
                parameters.setdefault("KeySpec", "SYMMETRIC_DEFAULT")
            return None, None
        key = self._find(operation, named, principal, region)
        self.keys.let_expire(key, self._now())
        self._authorise(operation, key, parameters.get("EncryptionContext", {}), principal)
        self._check_state(operation, key)
        if operation in _BY_BARE_ID:
            parameters["KeyId"] = key.id
        if operation == "PutKeyPolicy":
            self._propagation.will_change_key(key)
        self._check_dry_run(operation, key, parameters)
        if operation == "EnableKeyRotation":
            self.keys.materials(key).rotation_period_days = parameters.get("RotationPeriodInDays", 365)
        answer = self._operations.get(operation)
        if answer is None:
            return None, key
        return answer(key, parameters), key

    def _find(self, operation: str, named: str, principal: Principal, region: str) -> Key:
        try:
            return self.keys.find(named, principal.account, region)
        except AwsError as error:
            if error.code == "NotFoundException" and named.startswith("arn:"):
                owner = named.split(":")[4]
                if owner != principal.account and error.message.startswith("Key"):
                    # AWS does not tell a stranger whether a key exists.
                    raise access_denied(principal.arn, f"kms:{operation}", named) from None
            raise

    def _authorise(self, operation: str, key: Key, context: dict[str, str], principal: Principal) -> None:
        same_account = principal.account == key.account_id
        if principal.is_admin and same_account:
            return
        action = f"kms:{operation}"
        question = Question(
            principal.arn, principal.account, action, key.arn, _condition_keys(context, principal)
        )
        if not same_account and operation not in CROSS_ACCOUNT:
            raise access_denied(principal.arn, action, key.arn, _NO_RESOURCE)
        key_policy = self._propagation.key_policy(key)
        layers = [("resource-based", [key_policy])]
        if not principal.is_vendor:
            # The default key policy delegates to the account's IAM, and across accounts both sides must
            # allow: the role's own policy, too. What the vendor's side allows its workers is not modelled.
            seen = self._propagation.role(principal.arn, find_role(principal.arn))
            layers.append(("identity-based", seen.permissions))
        if principal.session_policy is not None:
            layers.append(("session", [principal.session_policy]))
        decisions = [(name, evaluate(policies, question)) for name, policies in layers]
        if self._is_granted(key, operation, context, principal):
            # A grant stands in for an Allow of the key policy; a Deny still wins.
            decisions[0] = (decisions[0][0], max(decisions[0][1], Decision.ALLOW, key=_by_strength))
            decisions = _without_iam(decisions)
        if same_account and allows_by_name(key_policy, question):
            # Within one account a key policy that names the role is enough: the role's own policy, with
            # its conditions, is not asked. A Deny in it still wins.
            decisions = _without_iam(decisions)
        _require_all(decisions, question)

    def _is_granted(self, key: Key, operation: str, context: dict[str, str], principal: Principal) -> bool:
        grants = list(kms_backends[key.account_id][key.region].keys[key.id].grants.values())
        return any(_grant_allows(grant, operation, context, principal) for grant in grants)

    def _check_state(self, operation: str, key: Key) -> None:
        """As the table "Key states of AWS KMS keys" of the Developer Guide has it."""
        pending = key.key_state == "PendingDeletion"
        if (operation in _NOT_WHILE_PENDING and pending) or (
            operation == "CancelKeyDeletion" and not pending
        ):
            raise AwsError("KMSInvalidStateException", f"{key.arn} is {key.key_state}.")
        if operation not in _CRYPTO:
            return
        if key.key_state == "Disabled":
            raise AwsError("DisabledException", f"{key.arn} is disabled.")
        if key.key_state != "Enabled":
            raise AwsError("KMSInvalidStateException", f"{key.arn} is pending: {key.key_state}.")
        if key.key_usage != "ENCRYPT_DECRYPT" or key.key_spec != "SYMMETRIC_DEFAULT":
            raise AwsError("InvalidKeyUsageException", f"{key.arn} key usage is {key.key_usage}")

    def _check_dry_run(self, operation: str, key: Key, parameters: Parameters) -> None:
        if not parameters.get("DryRun") or operation not in _DRY_RUN:
            return
        if operation == "Decrypt" and "IGNORE_CIPHERTEXT" not in parameters.get("DryRunModifiers", []):
            self.keys.decrypt(key, base64.b64decode(parameters["CiphertextBlob"]), _context(parameters))
        raise _would_have_succeeded()

    def _generate_data_key(self, key: Key, parameters: Parameters) -> dict[str, Any]:
        spec, count = parameters.get("KeySpec"), parameters.get("NumberOfBytes")
        if (spec is None) == (count is None):
            raise AwsError("ValidationException", "Please specify either number of bytes or key spec.")
        plaintext = os.urandom(count or {"AES_256": 32, "AES_128": 16}[str(spec)])
        blob = self.keys.encrypt(key, plaintext, _context(parameters))
        return self._about(key) | {"CiphertextBlob": _b64(blob), "Plaintext": _b64(plaintext)}

    def _generate_without_plaintext(self, key: Key, parameters: Parameters) -> dict[str, Any]:
        reply = self._generate_data_key(key, parameters)
        del reply["Plaintext"]
        return reply

    def _encrypt(self, key: Key, parameters: Parameters) -> dict[str, Any]:
        plaintext = base64.b64decode(parameters["Plaintext"])
        if len(plaintext) > _MAX_PLAINTEXT_BYTES:
            raise AwsError(
                "ValidationException",
                "1 validation error detected: Value at 'plaintext' failed to satisfy constraint: "
                f"Member must have length less than or equal to {_MAX_PLAINTEXT_BYTES}",
            )
        blob = self.keys.encrypt(key, plaintext, _context(parameters))
        return {"KeyId": key.arn, "CiphertextBlob": _b64(blob), "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}

    def _decrypt(self, key: Key, parameters: Parameters) -> dict[str, Any]:
        blob = base64.b64decode(parameters["CiphertextBlob"])
        plaintext, generation = self.keys.decrypt(key, blob, _context(parameters))
        return self._about(key, generation) | {
            "Plaintext": _b64(plaintext),
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        }

    def _re_encrypt(
        self, parameters: Parameters, principal: Principal, region: str
    ) -> tuple[dict[str, Any], Key]:
        source_context = parameters.get("SourceEncryptionContext", {})
        target_context = parameters.get("DestinationEncryptionContext", {})
        source = self._find("ReEncrypt", parameters["SourceKeyId"], principal, region)
        target = self._find("ReEncrypt", parameters["DestinationKeyId"], principal, region)
        self._authorise("ReEncryptFrom", source, source_context, principal)
        self._authorise("ReEncryptTo", target, target_context, principal)
        self._check_state("ReEncrypt", source)
        self._check_state("ReEncrypt", target)
        dry, modifiers = bool(parameters.get("DryRun")), parameters.get("DryRunModifiers", [])
        if dry and "IGNORE_CIPHERTEXT" in modifiers:
            raise _would_have_succeeded()
        blob = base64.b64decode(parameters["CiphertextBlob"])
        plaintext, _ = self.keys.decrypt(source, blob, source_context)
        if dry:
            raise _would_have_succeeded()
        again = self.keys.encrypt(target, plaintext, target_context)
        return {"CiphertextBlob": _b64(again), "SourceKeyId": source.arn, "KeyId": target.arn}, target

    def _describe_key(self, key: Key, _parameters: Parameters) -> dict[str, Any]:
        description = key.to_dict()
        description["KeyMetadata"]["CurrentKeyMaterialId"] = self.keys.material_id(key)
        if key.origin == "EXTERNAL" and key.key_state != "PendingImport":
            description["KeyMetadata"] |= _expiration(self.keys.materials(key).expires_at)
        return description

    def _rotation_status(self, key: Key, _parameters: Parameters) -> dict[str, Any]:
        if key.origin != "AWS_KMS":
            raise AwsError("UnsupportedOperationException", f"{key.arn} origin is {key.origin}")
        status: dict[str, Any] = {"KeyId": key.arn, "KeyRotationEnabled": bool(key.key_rotation_status)}
        if key.key_rotation_status:
            days = self.keys.materials(key).rotation_period_days
            created = datetime.fromtimestamp(key.creation_date, UTC)
            status |= {
                "RotationPeriodInDays": days,
                "NextRotationDate": (created + timedelta(days=days)).timestamp(),
            }
        return status

    def _rotate(self, key: Key, _parameters: Parameters) -> dict[str, Any]:
        self.keys.rotate(key)
        return {"KeyId": key.arn}

    def _about(self, key: Key, generation: int | None = None) -> dict[str, Any]:
        return {"KeyId": key.arn, "KeyMaterialId": self.keys.material_id(key, generation)}


def _condition_keys(context: dict[str, str], principal: Principal) -> dict[str, list[str]]:
    keys = {"aws:principalarn": [principal.arn], "aws:principalaccount": [principal.account]}
    keys |= {f"kms:encryptioncontext:{name.lower()}": [value] for name, value in context.items()}
    if context:
        keys["kms:encryptioncontextkeys"] = list(context)
    if principal.issued_at is not None:
        keys["aws:tokenissuetime"] = [f"{principal.issued_at:%Y-%m-%dT%H:%M:%SZ}"]
    return keys


def _require_all(decisions: list[tuple[str, Decision]], question: Question) -> None:
    for name, decision in decisions:
        if decision is Decision.DENY:
            why = f"with an explicit deny in a{'n' if name[0] == 'i' else ''} {name} policy"
            raise access_denied(question.principal_arn, question.action, question.resource, why)
    for name, decision in decisions:
        if decision is not Decision.ALLOW:
            why = f"because no {name} policy allows the {question.action} action"
            raise access_denied(question.principal_arn, question.action, question.resource, why)


def _without_iam(decisions: list[tuple[str, Decision]]) -> list[tuple[str, Decision]]:
    return [one for one in decisions if one[0] != "identity-based" or one[1] is Decision.DENY]


def _by_strength(decision: Decision) -> int:
    return [Decision.SILENT, Decision.ALLOW, Decision.DENY].index(decision)


def _grant_allows(grant: Grant, operation: str, context: dict[str, str], principal: Principal) -> bool:
    if grant.grantee_principal != principal.arn or operation not in grant.operations:
        return False
    wanted = grant.constraints or {}
    exact, subset = wanted.get("EncryptionContextEquals"), wanted.get("EncryptionContextSubset", {})
    if operation in _CRYPTO and exact is not None and exact != context:
        return False
    return operation not in _CRYPTO or subset.items() <= context.items()


def _expiration(expires_at: datetime | None) -> dict[str, Any]:
    if expires_at is None:
        return {"ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE"}
    return {"ExpirationModel": "KEY_MATERIAL_EXPIRES", "ValidTo": expires_at.timestamp()}


def _would_have_succeeded() -> AwsError:
    return AwsError("DryRunOperationException", "The request would have succeeded", status=412)


def _context(parameters: Parameters) -> dict[str, str]:
    context: dict[str, str] = parameters.get("EncryptionContext", {})
    return context


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
