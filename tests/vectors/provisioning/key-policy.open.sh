#!/usr/bin/env bash
# Adds to a KMS key's policy, for tenant acme; needs jq.
# Read it, then run it with an administrator's credentials of your account.
set -euo pipefail

kms_key_arn="${1:?usage: $0 ARN-OF-THE-KMS-KEY}"
region=$(cut -d: -f4 <<<"$kms_key_arn")

statements='[
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
]'

before=$(aws kms get-key-policy --region "$region" --key-id "$kms_key_arn" --policy-name default \
  --query Policy --output text)
after=$(jq --argjson added "$statements" '.Statement += $added' <<<"$before")
aws kms put-key-policy --region "$region" --key-id "$kms_key_arn" --policy-name default --policy "$after"

echo "send this back: KMS key $kms_key_arn"
