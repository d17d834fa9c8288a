# Vault's audit devices, with the provider hashicorp/vault. The file is what a shipper follows, or pipeproof itself on the
# same machine; the device is one of each node.

variable "file_path" {
  type    = string
  default = "/var/log/vault/audit.log"
}

variable "second_file_path" {
  type        = string
  default     = ""
  description = "A second file device on another disk. Vault answers as long as one device can be written; entries that come twice count once"
}

variable "socket_address" {
  type        = string
  default     = ""
  description = "host:port of a shipper beside Vault that listens for lines, such as 127.0.0.1:9090; a socket that blocks stops Vault unless another device can be written"
}

resource "vault_audit" "file" {
  type  = "file"
  path  = "pipeproof"
  local = true
  options = {
    file_path = var.file_path
    mode      = "0640" # the shipper's group reads it
    # log_raw stays off: values are hashed, and equal ones can still be compared.
  }
}

resource "vault_audit" "second" {
  count = var.second_file_path == "" ? 0 : 1
  type  = "file"
  path  = "pipeproof-second"
  local = true
  options = {
    file_path = var.second_file_path
    mode      = "0640"
  }
}

resource "vault_audit" "socket" {
  count = var.socket_address == "" ? 0 : 1
  type  = "socket"
  path  = "pipeproof-socket"
  local = true
  options = {
    address     = var.socket_address
    socket_type = "tcp"
  }
}
