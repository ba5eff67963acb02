//! Agents whose clocks are ten years off: the server's time orders, theirs is data.

use crate::puppet::{Puppet, QUICK, now_us};
use nublar_simulator::agent_keys;
use nublar_tests::{Installation, Server};
use serde_json::Value;

const TEN_YEARS_US: i64 = 10 * 365 * 86_400 * 1_000_000;
const MINUTE_US: i64 = 60_000_000;

#[tokio::test]
async fn clocks_that_are_ten_years_off_order_nothing_and_are_shown() {
    let installation = Installation::empty().with(QUICK);
    let mut server = Server::start(&installation).await;
    let api = server.api();
    let began = now_us();
    let is_now = |at: &Value| {
        let at = at.as_i64().unwrap();
        assert!(
            (began - MINUTE_US..=now_us()).contains(&at),
            "{at} is not now"
        );
        at
    };
    let keys = agent_keys(None, 3).await.unwrap();
    for (key, skew_us) in keys.into_iter().zip([TEN_YEARS_US, -TEN_YEARS_US, 0]) {
        let agent = Puppet::start(&server, key, skew_us).await;
        let client = agent.client();
        // Three flows, each begun when the last was over; the clock goes on meanwhile.
        let flows = ["F.DC2M4H5TA9T30", "F.DC2M4H5TA9T31", "F.DC2M4H5TA9T32"];
        for flow in flows {
            let mut said = vec![
                agent.rows(flow, "Rows", 0, "{\"n\":1}\n{\"n\":2}\n"),
                agent.log(flow, "a line"),
                agent.file(flow, "/etc/hostname", b"host"),
            ];
            said.push(agent.end(flow, 2, &[b"host"]));
            agent.send(&said).await;
            api.settled().await;
        }
        let event = agent.rows("F.Monitoring", "Some.Event", 0, "{\"e\":1}\n");
        agent.send(&[event]).await;
        api.settled().await;

        let shown = api.json(&format!("/clients/{client}")).await;
        let skew = shown["clock_skew_ms"].as_i64().unwrap();
        assert!(
            (skew - skew_us / 1_000).abs() < 10_000,
            "{skew} ms for {skew_us} us"
        );
        is_now(&shown["first_seen_at"]);
        is_now(&shown["last_seen_at"]);
        // Newest first, by when they came here.
        let listed = api.json(&format!("/clients/{client}/flows")).await;
        let listed = listed["flows"].as_array().unwrap();
        let ids: Vec<_> = listed
            .iter()
            .map(|flow| flow["flow_id"].as_str().unwrap())
            .collect();
        assert_eq!(ids, [flows[2], flows[1], flows[0]]);
        for flow in listed {
            assert_eq!(
                (&flow["state"], &flow["total_collected_rows"]),
                (&"FINISHED".into(), &2.into())
            );
            assert!(
                is_now(&flow["create_time"]) <= is_now(&flow["end_time"]),
                "{flow}"
            );
        }
        // What it says of time itself is kept as it is.
        let flow = format!("/clients/{client}/flows/{}", flows[0]);
        let about = i64::try_from(agent.clock_us()).unwrap();
        let log: Value = serde_json::from_str(&api.text(&format!("{flow}/logs")).await).unwrap();
        let said = log["client_time"].as_i64().unwrap() * 1_000_000;
        assert!((about - said).abs() < MINUTE_US, "{log}");
        assert_eq!(log["message"], "a line");
        let at = |us: i64| us / 1_000_000;
        let events = format!("/clients/{client}/events/Some.Event");
        for (since, until, there) in [
            (about - MINUTE_US, about + MINUTE_US, true),
            (about + MINUTE_US, about + 2 * MINUTE_US, false),
        ] {
            let rows = api
                .text(&format!("{events}?since={}&until={}", at(since), at(until)))
                .await;
            assert_eq!(rows.contains("\"e\":1"), there, "{rows}");
        }
    }
    let said = server.order(&installation, &["clients"]);
    assert_eq!(said.lines().count(), 4, "{said}");
    let clients = api.json("/clients").await;
    let off = clients["clients"].as_array().unwrap().iter();
    let said = off.map(|client| {
        let id = client["client_id"].as_str().unwrap();
        server.order(&installation, &["client", id])
    });
    let said: String = said.collect();
    assert!(
        said.contains("3650 d 0 h ahead") && said.contains("3650 d 0 h behind"),
        "{said}"
    );
    server.stop().await;
}
