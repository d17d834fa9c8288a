# Diagnostic settings to event hubs.

variable "resource_group" { type = string }
variable "location" { type = string }
variable "namespace" { type = string }
variable "subscription_id" { type = string }
variable "key_vault_id" { type = string }

resource "azurerm_eventhub_namespace" "logs" {
  name                = var.namespace
  resource_group_name = var.resource_group
  location            = var.location
  sku                 = "Standard"
}

resource "azurerm_eventhub" "hub" {
  for_each          = toset(["entra", "activity", "keyvault"])
  name              = each.value
  namespace_id      = azurerm_eventhub_namespace.logs.id
  partition_count   = 4
  message_retention = 7
}

resource "azurerm_eventhub_namespace_authorization_rule" "send" {
  name                = "diagnostics"
  namespace_name      = azurerm_eventhub_namespace.logs.name
  resource_group_name = var.resource_group
  listen              = true
  send                = true
  manage              = true
}

resource "azurerm_monitor_aad_diagnostic_setting" "entra" {
  name                           = "pipeproof"
  eventhub_authorization_rule_id = azurerm_eventhub_namespace_authorization_rule.send.id
  eventhub_name                  = azurerm_eventhub.hub["entra"].name
  dynamic "enabled_log" {
    for_each = ["AuditLogs", "SignInLogs", "NonInteractiveUserSignInLogs", "ServicePrincipalSignInLogs", "ManagedIdentitySignInLogs"]
    content { category = enabled_log.value }
  }
}

resource "azurerm_monitor_diagnostic_setting" "activity" {
  name                           = "pipeproof"
  target_resource_id             = "/subscriptions/${var.subscription_id}"
  eventhub_authorization_rule_id = azurerm_eventhub_namespace_authorization_rule.send.id
  eventhub_name                  = azurerm_eventhub.hub["activity"].name
  dynamic "enabled_log" {
    for_each = ["Administrative", "Security", "Policy"]
    content { category = enabled_log.value }
  }
}

resource "azurerm_monitor_diagnostic_setting" "keyvault" {
  name                           = "pipeproof"
  target_resource_id             = var.key_vault_id
  eventhub_authorization_rule_id = azurerm_eventhub_namespace_authorization_rule.send.id
  eventhub_name                  = azurerm_eventhub.hub["keyvault"].name
  enabled_log { category = "AuditEvent" }
}
