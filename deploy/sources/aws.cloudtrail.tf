# A trail with signed digests, and every object of it to pipeproof by a function. `index.py` is the function of aws.cloudtrail.md.

variable "bucket" { type = string }
variable "url" { type = string }
variable "token_parameter" {
  type        = string
  description = "Name of the SSM SecureString that holds the source's token"
}

data "aws_caller_identity" "this" {}
data "aws_region" "this" {}

resource "aws_s3_bucket" "trail" {
  bucket = var.bucket
}

data "aws_iam_policy_document" "trail" {
  statement {
    actions   = ["s3:GetBucketAcl"]
    resources = [aws_s3_bucket.trail.arn]
    principals {
      type        = "Service"
      identifiers = ["cloudtrail.amazonaws.com"]
    }
  }
  statement {
    actions   = ["s3:PutObject"]
    resources = ["${aws_s3_bucket.trail.arn}/AWSLogs/${data.aws_caller_identity.this.account_id}/*"]
    principals {
      type        = "Service"
      identifiers = ["cloudtrail.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "s3:x-amz-acl"
      values   = ["bucket-owner-full-control"]
    }
  }
}

resource "aws_s3_bucket_policy" "trail" {
  bucket = aws_s3_bucket.trail.id
  policy = data.aws_iam_policy_document.trail.json
}

resource "aws_cloudtrail" "trail" {
  name                          = "pipeproof"
  s3_bucket_name                = aws_s3_bucket.trail.id
  is_multi_region_trail         = true
  include_global_service_events = true
  enable_log_file_validation    = true
  depends_on                    = [aws_s3_bucket_policy.trail]
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "forward" {
  name               = "pipeproof-forward"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

data "aws_iam_policy_document" "forward" {
  statement {
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.trail.arn}/AWSLogs/*"]
  }
  statement {
    actions   = ["ssm:GetParameter"]
    resources = ["arn:aws:ssm:${data.aws_region.this.name}:${data.aws_caller_identity.this.account_id}:parameter/${trimprefix(var.token_parameter, "/")}"]
  }
  statement {
    actions   = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "sqs:SendMessage"]
    resources = ["arn:aws:logs:*:*:*", aws_sqs_queue.failed.arn]
  }
}

resource "aws_iam_role_policy" "forward" {
  role   = aws_iam_role.forward.id
  policy = data.aws_iam_policy_document.forward.json
}

resource "aws_sqs_queue" "failed" {
  name                      = "pipeproof-forward-failed"
  message_retention_seconds = 1209600
}

resource "aws_sqs_queue_policy" "failed" {
  queue_url = aws_sqs_queue.failed.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "events.amazonaws.com" }
      Action    = "sqs:SendMessage"
      Resource  = aws_sqs_queue.failed.arn
      Condition = { ArnEquals = { "aws:SourceArn" = aws_cloudwatch_event_rule.now.arn } }
    }]
  })
}

data "archive_file" "forward" {
  type        = "zip"
  source_file = "${path.module}/index.py"
  output_path = "${path.module}/forward.zip"
}

resource "aws_lambda_function" "forward" {
  function_name    = "pipeproof-forward"
  role             = aws_iam_role.forward.arn
  runtime          = "python3.13"
  handler          = "index.handler"
  filename         = data.archive_file.forward.output_path
  source_code_hash = data.archive_file.forward.output_base64sha256
  timeout          = 60
  environment {
    variables = { URL = var.url, TOKEN_PARAMETER = var.token_parameter }
  }
}

resource "aws_lambda_function_event_invoke_config" "forward" {
  function_name                = aws_lambda_function.forward.function_name
  maximum_event_age_in_seconds = 21600
  maximum_retry_attempts       = 2
  destination_config {
    on_failure { destination = aws_sqs_queue.failed.arn }
  }
}

resource "aws_lambda_permission" "bucket" {
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.forward.function_name
  principal     = "s3.amazonaws.com"
  source_arn    = aws_s3_bucket.trail.arn
}

resource "aws_s3_bucket_notification" "trail" {
  bucket = aws_s3_bucket.trail.id
  lambda_function {
    lambda_function_arn = aws_lambda_function.forward.arn
    events              = ["s3:ObjectCreated:*"]
    filter_prefix       = "AWSLogs/"
  }
  depends_on = [aws_lambda_permission.bucket]
}

# What cannot wait for the five minutes that files take: credentials and secrets, at once by EventBridge. Reads whose names start
# with Get, List or Describe come this way only where the rule says so.
resource "aws_cloudwatch_event_rule" "now" {
  name  = "pipeproof-now"
  state = "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"
  event_pattern = jsonencode({
    source      = ["aws.sts", "aws.secretsmanager", "aws.kms", "aws.iam", "aws.cloudtrail"]
    detail-type = ["AWS API Call via CloudTrail"]
  })
}

data "aws_ssm_parameter" "token" {
  name            = var.token_parameter
  with_decryption = true
}

resource "aws_cloudwatch_event_connection" "pipeproof" {
  name               = "pipeproof"
  authorization_type = "API_KEY"
  auth_parameters {
    api_key {
      key   = "Authorization"
      value = "Bearer ${data.aws_ssm_parameter.token.value}"
    }
  }
}

resource "aws_cloudwatch_event_api_destination" "pipeproof" {
  name                             = "pipeproof"
  connection_arn                   = aws_cloudwatch_event_connection.pipeproof.arn
  invocation_endpoint              = var.url
  http_method                      = "POST"
  invocation_rate_limit_per_second = 300
}

data "aws_iam_policy_document" "events" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "events" {
  name               = "pipeproof-events"
  assume_role_policy = data.aws_iam_policy_document.events.json
}

resource "aws_iam_role_policy" "events" {
  role = aws_iam_role.events.id
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "events:InvokeApiDestination", Resource = aws_cloudwatch_event_api_destination.pipeproof.arn }]
  })
}

resource "aws_cloudwatch_event_target" "now" {
  rule     = aws_cloudwatch_event_rule.now.name
  arn      = aws_cloudwatch_event_api_destination.pipeproof.arn
  role_arn = aws_iam_role.events.arn
  dead_letter_config { arn = aws_sqs_queue.failed.arn }
}
