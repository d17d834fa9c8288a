# Audit logs of one project to pipeproof, by way of Pub/Sub.

variable "project" { type = string }
variable "url" {
  type        = string
  description = "The source's address, as `sources add` prints it: where entries go, and the audience of the token that goes with them"
}

resource "google_project_iam_audit_config" "reads" {
  for_each = toset(["sts.googleapis.com", "iamcredentials.googleapis.com", "iam.googleapis.com", "secretmanager.googleapis.com", "cloudkms.googleapis.com"])
  project  = var.project
  service  = each.value
  audit_log_config { log_type = "ADMIN_READ" }
  audit_log_config { log_type = "DATA_READ" }
}

resource "google_pubsub_topic" "audit" {
  project                    = var.project
  name                       = "pipeproof-audit"
  message_retention_duration = "604800s" # what a week of silence leaves behind
}

resource "google_logging_project_sink" "audit" {
  project                = var.project
  name                   = "pipeproof"
  destination            = "pubsub.googleapis.com/${google_pubsub_topic.audit.id}"
  filter                 = "logName:\"cloudaudit.googleapis.com\""
  unique_writer_identity = true
}

resource "google_pubsub_topic_iam_member" "writer" {
  project = var.project
  topic   = google_pubsub_topic.audit.name
  role    = "roles/pubsub.publisher"
  member  = google_logging_project_sink.audit.writer_identity
}

resource "google_service_account" "push" {
  project    = var.project
  account_id = "pipeproof-push"
}

resource "google_pubsub_subscription" "push" {
  project                    = var.project
  name                       = "pipeproof"
  topic                      = google_pubsub_topic.audit.id
  ack_deadline_seconds       = 60
  message_retention_duration = "604800s"
  expiration_policy { ttl = "" }
  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }
  push_config {
    push_endpoint = var.url
    oidc_token {
      service_account_email = google_service_account.push.email
      audience              = var.url
    }
  }
}

# What pipeproof has to know of the sender: `identity` of the source in pipeproof.yaml.
output "identity" {
  value = { audience = var.url, email = google_service_account.push.email }
}
