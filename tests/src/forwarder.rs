//! A way to a service that can be shut: connections are refused, or everything falls silent.

use crate::server::free_port;
use std::net::{SocketAddr, ToSocketAddrs};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// They are carried.
    Open,
    /// Those that are there break, new ones are refused.
    Refused,
    /// They are taken, and nothing passes in either direction until the way is another.
    Silent,
}

/// Carries connections from a port of its own to a service. Dropping it ends it.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    way: watch::Sender<Way>,
    task: JoinHandle<()>,
}

impl Forwarder {
    /// In front of an `http://host:port`, open.
    pub async fn to_url(url: &str) -> Self {
        let target = url.strip_prefix("http://").unwrap().trim_end_matches('/');
        let target = target.to_socket_addrs().unwrap().next().unwrap();
        let listener = TcpListener::bind(free_port()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, seen) = watch::channel(Way::Open);
        let task = tokio::spawn(listen(listener, target, seen));
        Self { address, way, task }
    }

    /// Where it listens, as `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on this becomes of connections.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(mut listener: TcpListener, target: SocketAddr, mut way: watch::Receiver<Way>) {
    let address = listener.local_addr().unwrap();
    let mut connections = JoinSet::new();
    loop {
        if *way.borrow_and_update() == Way::Refused {
            drop(listener);
            connections.shutdown().await;
            if way.wait_for(|way| *way != Way::Refused).await.is_err() {
                return;
            }
            listener = TcpListener::bind(address).await.unwrap();
        }
        tokio::select! {
            changed = way.changed() => if changed.is_err() { return },
            Ok((stream, _)) = listener.accept() => {
                connections.spawn(carry(stream, target, way.clone()));
                while connections.try_join_next().is_some() {}
            }
        }
    }
}

async fn carry(from: TcpStream, target: SocketAddr, mut way: watch::Receiver<Way>) {
    if way.wait_for(|way| *way != Way::Silent).await.is_err() {
        return;
    }
    let Ok(to) = TcpStream::connect(target).await else {
        return;
    };
    let _ = (from.set_nodelay(true), to.set_nodelay(true));
    let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
    tokio::join!(
        one_way(from_read, to_write, way.clone()),
        one_way(to_read, from_write, way)
    );
}

/// Until either side ends.
async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut way: watch::Receiver<Way>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if way.wait_for(|way| *way != Way::Silent).await.is_err()
            || to.write_all(&buffer[..read]).await.is_err()
        {
            break;
        }
    }
    let _ = to.shutdown().await;
}
