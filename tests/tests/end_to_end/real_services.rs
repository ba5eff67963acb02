//! On Kafka, OpenSearch and S3 the same is stored as in one process alone, to the byte: with all
//! roles in one process, and with each in its own.

use crate::orders::{RECORDINGS, assert_same, plain};
use nublar_tests::{Installation, Recorded, Role, Server, Services};

fn installation(services: &Services, recorded: &Recorded) -> Installation {
    let installation = Installation::recorded(recorded);
    let storage = services.storage(&installation.beside("keys"));
    installation.with_first("partitions = 4\n").with(&storage)
}

#[tokio::test]
async fn one_process() {
    let Some(services) = Services::from_env() else {
        return;
    };
    for name in RECORDINGS {
        let (recorded, plain) = plain(name).await;
        let installation = installation(&services, &recorded);
        let mut server = Server::start_role(&installation, Role::Run(2), "run").await;
        let player = server.player();
        for (turn, letter) in recorded.letters().iter().enumerate() {
            player.play(turn, letter, letter.status).await;
        }
        assert_same(plain, &server.api().dump().await, "one process");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_process_for_each_role() {
    let Some(services) = Services::from_env() else {
        return;
    };
    for name in RECORDINGS {
        let (recorded, plain) = plain(name).await;
        let installation = installation(&services, &recorded);
        Server::set_up(&installation).await;
        // Safe to repeat.
        Server::set_up(&installation).await;
        let start = |role, name| Server::start_role(&installation, role, name);
        let (mut gui, mut worker, mut foreman, mut first, mut second) = tokio::join!(
            start(Role::Gui, "gui"),
            start(Role::Worker, "worker"),
            start(Role::Foreman, "foreman"),
            start(Role::Frontend, "first-frontend"),
            start(Role::Frontend, "second-frontend"),
        );
        let player = Server::player_of(&[&first, &second]);
        for (turn, letter) in recorded.letters().iter().enumerate() {
            player.play(turn, letter, letter.status).await;
            // Each of them is lost once, in the middle of its work.
            let lost = match turn {
                8 => &mut worker,
                14 => &mut foreman,
                20 => &mut gui,
                26 => &mut first,
                _ => continue,
            };
            lost.kill9().await;
            lost.restart().await;
        }
        assert_same(plain, &gui.api().dump().await, "a process for each role");
        for server in [&mut gui, &mut worker, &mut foreman, &mut first, &mut second] {
            server.stop().await;
        }
    }
}
