variable "kms_key_arn" {
  type        = string
  description = "ARN of a symmetric KMS key in this account"
}

locals {
  byok_trust_policy = <<-JSON
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Effect": "Allow",
          "Principal": {
            "AWS": "arn:aws:iam::111111111111:root"
          },
          "Action": "sts:AssumeRole",
          "Condition": {
            "StringEquals": {
              "sts:ExternalId": "byok-an-external-id-of-32-characters"
            },
            "ArnEquals": {
              "aws:PrincipalArn": "arn:aws:iam::111111111111:role/byok-worker"
            }
          }
        }
      ]
    }
  JSON

  byok_permissions = <<-JSON
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Sid": "ByokUseWithContext",
          "Effect": "Allow",
          "Action": [
            "kms:GenerateDataKeyWithoutPlaintext",
            "kms:Decrypt"
          ],
          "Resource": "${var.kms_key_arn}",
          "Condition": {
            "StringEquals": {
              "kms:EncryptionContext:byok-app": "byok",
              "kms:EncryptionContext:byok-tenant": "01a20d4b-390b-73fc-8595-0f2d7a5790c9"
            },
            "ForAllValues:StringEquals": {
              "kms:EncryptionContextKeys": [
                "byok-app",
                "byok-key",
                "byok-purpose",
                "byok-schema",
                "byok-tenant",
                "byok-version"
              ]
            }
          }
        },
        {
          "Sid": "ByokLook",
          "Effect": "Allow",
          "Action": [
            "kms:DescribeKey",
            "kms:GetKeyRotationStatus",
            "kms:ListResourceTags"
          ],
          "Resource": "${var.kms_key_arn}"
        }
      ]
    }
  JSON
}

resource "aws_iam_role" "byok" {
  name                 = "byok-acme"
  description          = "byok uses the KMS key of tenant acme through this role"
  max_session_duration = 3600
  assume_role_policy   = local.byok_trust_policy
}

resource "aws_iam_role_policy" "byok" {
  name   = "byok"
  role   = aws_iam_role.byok.id
  policy = local.byok_permissions
}

output "role_arn" {
  description = "send this back, with the ARN of the KMS key"
  value       = aws_iam_role.byok.arn
}

# Only where the KMS key's policy leaves nothing to the account's IAM: add these to it.
output "key_policy_statements_without_iam" {
  value = <<-JSON
    [
      {
        "Sid": "ByokRoleUseWithContext",
        "Effect": "Allow",
        "Principal": {
          "AWS": "${aws_iam_role.byok.arn}"
        },
        "Action": [
          "kms:GenerateDataKeyWithoutPlaintext",
          "kms:Decrypt"
        ],
        "Resource": "*",
        "Condition": {
          "StringEquals": {
            "kms:EncryptionContext:byok-app": "byok",
            "kms:EncryptionContext:byok-tenant": "01a20d4b-390b-73fc-8595-0f2d7a5790c9"
          },
          "ForAllValues:StringEquals": {
            "kms:EncryptionContextKeys": [
              "byok-app",
              "byok-key",
              "byok-purpose",
              "byok-schema",
              "byok-tenant",
              "byok-version"
            ]
          }
        }
      },
      {
        "Sid": "ByokRoleLook",
        "Effect": "Allow",
        "Principal": {
          "AWS": "${aws_iam_role.byok.arn}"
        },
        "Action": [
          "kms:DescribeKey",
          "kms:GetKeyRotationStatus",
          "kms:ListResourceTags"
        ],
        "Resource": "*"
      }
    ]
  JSON
}
