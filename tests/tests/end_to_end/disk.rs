//! A full disk: nothing is said to be stored that is not, reads go on, and room is all that it
//! takes to recover.

use crate::orders::{assert_same, plain};
use nublar_tests::{Installation, Letter, Player, Server, SmallDisk, eventually};

const MIB: u32 = 32;
/// The request with the large file.
const LARGE: u64 = 17;

async fn status(player: &Player, letter: &Letter) -> Result<u16, String> {
    let answer = player.post(0, &letter.path, letter.body.clone()).await;
    answer
        .map(|answer| answer.status)
        .map_err(|broken| format!("{broken:?}"))
}

/// As an agent does: again and again, until it is taken.
async fn until_taken(player: &Player, letter: &Letter) {
    eventually(
        &format!("request {} is taken", letter.number),
        async || match status(player, letter).await {
            Ok(200) => Ok(()),
            other => Err(other),
        },
    )
    .await;
}

#[tokio::test]
async fn a_full_disk_is_said_and_survived() {
    let Some(disk) = SmallDisk::mount(MIB) else {
        return;
    };
    let (recorded, plain) = plain("collections").await;
    let installation = Installation::within(&disk.path().join("data")).take_recording(&recorded);
    let mut server = Server::start(&installation).await;
    let (api, client) = (server.api(), recorded.client_id());
    let player = server.player();
    for letter in recorded.enrolment() {
        player.play(0, letter, 406).await;
    }
    let at = recorded
        .taken()
        .iter()
        .position(|letter| letter.number == LARGE)
        .unwrap();
    let (before, rest) = recorded.taken().split_at(at);
    for letter in before {
        player.play(0, letter, 200).await;
    }
    api.settled().await;
    let flows = async || {
        let listed = api.json(&format!("/clients/{client}/flows")).await;
        listed["flows"].as_array().unwrap().clone()
    };
    let known = flows().await;

    // Full while it runs: whatever is said, it is not 200, and everything can be read.
    let ballast = disk.fill();
    for _ in 0..3 {
        assert_eq!(status(&player, &rest[0]).await, Ok(503));
        // That a flow lives may have found room: of what is stored nothing is gone or changed.
        let mut shown = flows().await;
        shown.retain(|flow| {
            known
                .iter()
                .any(|known| known["flow_id"] == flow["flow_id"])
        });
        assert_eq!(shown, known);
        let rows = api.text("/dump").await;
        assert!(rows.lines().any(|line| line.contains("\"kind\":\"rows\"")));
    }
    std::fs::remove_file(&ballast).unwrap();
    until_taken(&player, &rest[0]).await;
    for letter in &rest[1..5] {
        until_taken(&player, letter).await;
    }

    // Full, and killed; it starts all the same, can be read, and takes more once there is room.
    api.settled().await;
    let before = api.dump().await;
    let ballast = disk.fill();
    assert_eq!(status(&player, &rest[0]).await, Ok(503));
    server.kill9().await;
    server.restart().await;
    assert_eq!(api.text("/dump").await, before);
    assert_eq!(status(&server.player(), &rest[0]).await, Ok(503));
    std::fs::remove_file(&ballast).unwrap();
    let player = server.player();
    for letter in &rest[5..] {
        until_taken(&player, letter).await;
    }
    assert_same(plain, &server.api().dump().await, "a full disk");
    server.stop().await;
}
