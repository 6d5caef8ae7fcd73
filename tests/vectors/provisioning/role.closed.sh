#!/usr/bin/env bash
# Lets byok use one KMS key for tenant acme, through a role.
# Read it, then run it with an administrator's credentials of your account.
set -euo pipefail

kms_key_arn="arn:aws:kms:eu-central-1:222222222222:key/1234abcd-12ab-34cd-56ef-1234567890ab"
region=$(cut -d: -f4 <<<"$kms_key_arn")

trust_policy='{
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
}'

permissions='{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Sid": "ByokUseWithContext",
      "Effect": "Allow",
      "Action": [
        "kms:GenerateDataKeyWithoutPlaintext",
        "kms:Decrypt"
      ],
      "Resource": "KMS_KEY_ARN",
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
      "Resource": "KMS_KEY_ARN"
    }
  ]
}'

role_arn=$(aws iam create-role --region "$region" --role-name byok-acme \
  --max-session-duration 3600 \
  --assume-role-policy-document "$trust_policy" --query Role.Arn --output text)
aws iam put-role-policy --region "$region" --role-name byok-acme --policy-name byok \
  --policy-document "${permissions//KMS_KEY_ARN/$kms_key_arn}"

# Only where the KMS key's policy leaves nothing to the account's IAM: add these to it.
without_iam='[
  {
    "Sid": "ByokRoleUseWithContext",
    "Effect": "Allow",
    "Principal": {
      "AWS": "ROLE_ARN"
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
      "AWS": "ROLE_ARN"
    },
    "Action": [
      "kms:DescribeKey",
      "kms:GetKeyRotationStatus",
      "kms:ListResourceTags"
    ],
    "Resource": "*"
  }
]'
echo "Only if the policy of the KMS key leaves nothing to the account's IAM, add to it:"
echo "${without_iam//ROLE_ARN/$role_arn}"

echo "send this back: role $role_arn, KMS key $kms_key_arn"
