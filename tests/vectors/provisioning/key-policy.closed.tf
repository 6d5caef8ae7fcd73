variable "account_id" {
  type        = string
  description = "this account: its IAM goes on administering the key"
}

locals {
  byok_key_policy = <<-JSON
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Sid": "Administration",
          "Effect": "Allow",
          "Principal": {
            "AWS": "arn:aws:iam::${var.account_id}:root"
          },
          "Action": "kms:*",
          "Resource": "*"
        },
        {
          "Sid": "ByokUseWithContext",
          "Effect": "Allow",
          "Principal": {
            "AWS": "arn:aws:iam::111111111111:root"
          },
          "Action": [
            "kms:GenerateDataKeyWithoutPlaintext",
            "kms:Decrypt"
          ],
          "Resource": "*",
          "Condition": {
            "ArnEquals": {
              "aws:PrincipalArn": "arn:aws:iam::111111111111:role/byok-worker"
            },
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
          "Principal": {
            "AWS": "arn:aws:iam::111111111111:root"
          },
          "Action": [
            "kms:DescribeKey",
            "kms:GetKeyRotationStatus"
          ],
          "Resource": "*",
          "Condition": {
            "ArnEquals": {
              "aws:PrincipalArn": "arn:aws:iam::111111111111:role/byok-worker"
            }
          }
        }
      ]
    }
  JSON
}

resource "aws_kms_key" "byok" {
  description         = "encrypts the data keys of tenant acme"
  enable_key_rotation = true
  policy              = local.byok_key_policy
}

output "kms_key_arn" {
  description = "send this back"
  value       = aws_kms_key.byok.arn
}
