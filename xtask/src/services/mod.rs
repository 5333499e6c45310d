//! Real services on free loopback ports, each with its data in a folder of its own.

pub(crate) mod postgres;

use std::net::TcpListener;

use anyhow::{Context, Result};

/// A port on 127.0.0.1 that nobody listens on.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr()?.port())
}
