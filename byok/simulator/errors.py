"""AWS errors as the simulator raises them."""


class AwsError(Exception):
    """An error reply of AWS: its code, HTTP status and message."""

    def __init__(self, code: str, message: str = "", status: int = 400) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.status = status


def access_denied(principal: str, action: str, resource: str, why: str = "") -> AwsError:
    """KMS's refusal. ``why`` names the policy at fault, as the IAM User Guide lists it under "Troubleshoot
    access denied error messages"."""
    return AwsError(
        "AccessDeniedException",
        f"User: {principal} is not authorized to perform: {action} on resource: {resource}"
        + (f" {why}" if why else ""),
    )
