//! Agents that reach the server with nothing in between.

use crate::agent::{Home, homes};
use crate::life::{Limits, live};
use nublar_tests::{Installation, Role, Server, Services};

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_agent_lives_on_one_machine() {
    for home in homes() {
        live_alone(&home, Installation::empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_agent_lives_on_real_services() {
    let homes = homes();
    let Some(services) = Services::from_env().filter(|_| !homes.is_empty()) else {
        return;
    };
    for home in homes {
        let installation = Installation::empty();
        let storage = services.storage(&installation.beside("keys"));
        live_alone(&home, installation.with(&storage)).await;
    }
}

async fn live_alone(home: &Home, installation: Installation) {
    let mut server = Server::start(&installation).await;
    let homes = std::slice::from_ref(home);
    live(&mut server, &installation, homes, &Limits::ALONE).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_agents_live_over_every_scheme() {
    let homes = homes();
    if homes.is_empty() {
        return;
    }
    let installation = Installation::empty();
    let mut server = Server::start_role(&installation, Role::Run(2), "run").await;
    let urls = server.agents().iter();
    // `https://…` serves `wss://…` too, and `http://…` `ws://…`.
    let urls = urls.flat_map(|url| [url.clone(), url.replacen("http", "ws", 1)]);
    let urls: Vec<_> = urls.collect();
    let homes = homes.iter().flat_map(|home| {
        let spoken = urls.iter().filter(|url| home.speaks(url));
        spoken.map(|url| home.at(url.split(':').next().unwrap(), url))
    });
    let homes: Vec<_> = homes.collect();
    live(&mut server, &installation, &homes, &Limits::AMONG_MANY).await;
    server.stop().await;
}
