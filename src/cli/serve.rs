//! `pipeproof serve`.

use std::net::SocketAddr;

use tokio::signal::unix::{SignalKind, signal};

use super::arguments::ServeOptions;
use super::{Failure, show};
use crate::client::Place;
use crate::config::{Config, ConfigError, LISTEN};
use crate::server::Server;
use crate::tls::TlsFiles;

pub(super) async fn serve(options: &ServeOptions, place: &Place) -> Result<(), Failure> {
    let config = configuration(options)?;
    let configured = config.listen.as_deref().map(str::parse).transpose();
    let configured: Option<SocketAddr> =
        configured.map_err(|_| Failure::Configuration("listen is not an address such as 127.0.0.1:7391".to_owned()))?;
    let listen = options.listen.or(configured).unwrap_or(LISTEN);
    if config.tls.is_none() && !listen.ip().is_loopback() && !options.allow_plaintext {
        return Err(Failure::Usage(format!(
            "{listen} is reachable from other machines and this is plain HTTP: give it a certificate (tls: in the configuration, or --tls-cert and --tls-key), listen on loopback behind a TLS proxy, or say --allow-plaintext"
        )));
    }
    let mut terminate = on(SignalKind::terminate())?;
    let mut interrupt = on(SignalKind::interrupt())?;
    let mut hang_up = on(SignalKind::hangup())?;
    let server = Server::start(&place.data, &config, listen).await?;
    show::diagnostic(&format!("listening on {}", server.url()));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => {
                server.reload_rules().await;
                reload(&server, options).await;
            }
        }
    }
    tracing::info!("stopping");
    server.stop().await?;
    tracing::info!("stopped");
    Ok(())
}

/// Reads again what else of the configuration may change while we run. A broken file keeps what is in force.
async fn reload(server: &Server, options: &ServeOptions) {
    match configuration(options) {
        Ok(config) => {
            if server.reload_configuration(Ok(&config)).await
                && let Err(error) = server.reload_addresses(&config).await
            {
                tracing::error!(error = %crate::chain(&error), "the address files could not be taken in");
            }
        }
        Err(error) => {
            server.reload_configuration(Err(crate::chain(&error))).await;
        }
    }
}

/// The file, and what the command line says beside it.
fn configuration(options: &ServeOptions) -> Result<Config, ConfigError> {
    let mut config = match &options.config {
        Some(path) => Config::load(path)?,
        None => Config::embedded(),
    };
    if let (Some(cert), Some(key)) = (&options.tls_cert, &options.tls_key) {
        let (cert, key) = (cert.clone(), key.clone());
        config.tls = Some(match config.tls {
            Some(files) => TlsFiles { cert, key, ..files },
            None => TlsFiles { cert, key, client_ca: None, client_crl: None, require_client_certificate: None },
        });
    }
    if options.public_url.is_some() {
        config.public_url.clone_from(&options.public_url);
    }
    Ok(config)
}

fn on(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|source| Failure::Io { doing: "listen for signals".to_owned(), source })
}
