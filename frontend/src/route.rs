//! Where a message goes, by its payload and its session. Pure.

use nublar_core::ids::{ClientKey, FlowId, Session};
use nublar_core::mac::MacKeys;
use nublar_schemas::agent::{FlowStats, ForemanCheckin, velo_status::ReturnedStatus};
use nublar_wire::{Kind, Message};
use prost::Message as _;

/// The length of what stands between `F.` and the end of an id of ours: 13 bytes in base32.
const OUR_BODY: usize = 21;

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// To `results`.
    Results,
    /// To `results`, and what it says of its flow to `scheduling`.
    Stats {
        /// It is the last word on the flow, in its place behind rows and buffers: to `uploads` too.
        marker: bool,
        /// The foreman must have it, whatever it had before.
        always: bool,
    },
    /// To `uploads`.
    Uploads,
    /// To `events`.
    Events,
    /// A check-in, with the version of the agent's event table.
    CheckIn(i64),
    /// It means nothing to a server.
    Ignored,
    /// To `dead-letters`: a word for machines and a sentence for people.
    Refused(&'static str, String),
    /// As [`Route::Refused`], but first the registry must have been read up to now: under a newer
    /// generation of the client the flow may be its own.
    Foreign(String),
}

/// Whose messages are routed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whose<'a> {
    pub(crate) client: &'a ClientKey,
    pub(crate) generation: i64,
    pub(crate) mac: &'a MacKeys,
    /// Flows whose ids are not of our making are taken.
    pub(crate) adopt: bool,
}

impl Whose<'_> {
    /// Where the message goes.
    pub(crate) fn route(&self, message: &Message) -> Route {
        let session = match message.session_id().parse::<Session>() {
            Ok(session) => session,
            Err(error) => return Route::Refused("bad session", error.to_string()),
        };
        match (message.kind, session) {
            (Kind::ForemanCheckin, Session::Foreman) => check_in(message),
            (Kind::Csr, Session::Enrol) => Route::Ignored,
            (_, Session::Status) => Route::Ignored,
            (Kind::FileBuffer | Kind::UploadTransaction, Session::Monitoring) => Route::Uploads,
            (Kind::VqlResponse | Kind::LogMessage, Session::Monitoring) => Route::Events,
            (Kind::FileBuffer | Kind::UploadTransaction, Session::Flow { id, .. }) => {
                self.of_flow(&id, Route::Uploads)
            }
            (Kind::VqlResponse | Kind::LogMessage, Session::Flow { id, .. }) => {
                self.of_flow(&id, Route::Results)
            }
            (Kind::FlowStats, Session::Flow { id, .. }) => self.of_flow(&id, stats(message)),
            (kind, _) => Route::Refused(
                "unexpected message",
                format!(
                    "{kind:?} under {:?} is nothing that an agent sends",
                    message.session_id()
                ),
            ),
        }
    }

    fn of_flow(&self, id: &FlowId, route: Route) -> Route {
        if self.mac.made_for(id, self.client, self.generation) || (self.adopt && adoptable(id)) {
            return route;
        }
        Route::Foreign(format!("flow {id} was never given to {}", self.client))
    }
}

/// Whether the id can be one of another server. One that looks like ours must be ours.
fn adoptable(id: &FlowId) -> bool {
    id.of_hunt() || id.body().len() != OUR_BODY
}

fn check_in(message: &Message) -> Route {
    match ForemanCheckin::decode(message.payload()) {
        Ok(check_in) => {
            let version = i64::try_from(check_in.last_event_table_version);
            Route::CheckIn(version.unwrap_or(i64::MAX))
        }
        Err(error) => Route::Refused("broken message", format!("ForemanCheckin: {error}")),
    }
}

fn stats(message: &Message) -> Route {
    let stats = match FlowStats::decode(message.payload()) {
        Ok(stats) => stats,
        Err(error) => return Route::Refused("broken message", format!("FlowStats: {error}")),
    };
    let unknown = i32::from(ReturnedStatus::UnknownFlow);
    let unknown = stats
        .query_status
        .iter()
        .any(|status| status.status == unknown);
    Route::Stats {
        marker: stats.flow_complete && !message.urgent && !unknown,
        // What is urgent answers a question.
        always: stats.flow_complete || unknown || message.urgent,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use nublar_core::mac::MacKey;
    use nublar_schemas::agent::{self, VeloMessage, VeloStatus};

    fn client(id: &str) -> ClientKey {
        ClientKey {
            org: "".parse().unwrap(),
            client: id.parse().unwrap(),
        }
    }

    fn route(adopt: bool, message: VeloMessage) -> Route {
        let mac = MacKeys::new(
            MacKey {
                from_us: 0,
                secret: [7; 32],
            },
            [],
        );
        let client = client("C.00000000000000aa");
        let whose = Whose {
            client: &client,
            generation: 1,
            mac: &mac,
            adopt,
        };
        whose.route(&Message::parse(message.encode_to_vec().into()).unwrap())
    }

    fn flow(generation: i64, of: &str) -> String {
        let mac = MacKeys::new(
            MacKey {
                from_us: 0,
                secret: [7; 32],
            },
            [],
        );
        mac.flow_id(&client(of), generation, 1_795_514_940_000_000, [1; 4])
            .to_string()
    }

    fn rows(session: &str) -> VeloMessage {
        VeloMessage {
            session_id: session.into(),
            vql_response: Some(Default::default()),
            ..Default::default()
        }
    }

    #[test]
    fn the_session_must_be_the_clients_own() {
        let own = flow(1, "C.00000000000000aa");
        assert_eq!(route(false, rows(&own)), Route::Results);
        assert_eq!(route(false, rows(&format!("{own}/part"))), Route::Results);
        for adopt in [false, true] {
            for foreign in [flow(1, "C.00000000000000bb"), flow(2, "C.00000000000000aa")] {
                assert!(
                    matches!(route(adopt, rows(&foreign)), Route::Foreign(_)),
                    "{foreign}"
                );
            }
        }
        for other in ["F.DC2M4H5TA9T34", "F.DC2M4UVJPNI1E.H"] {
            assert!(matches!(route(false, rows(other)), Route::Foreign(_)));
            assert_eq!(route(true, rows(other)), Route::Results);
        }
        for bad in [
            "",
            "F.",
            "H.DC2M4UVJPNI1E",
            "F.a.b",
            "/etc",
            "F.Monitoring/x",
        ] {
            assert!(
                matches!(route(true, rows(bad)), Route::Refused("bad session", _)),
                "{bad}"
            );
        }
        assert_eq!(route(false, rows("F.Monitoring")), Route::Events);
        assert_eq!(route(false, rows("F.Status")), Route::Ignored);
        assert!(matches!(
            route(true, rows("E.Foreman")),
            Route::Refused("unexpected message", _)
        ));
        let ping = VeloMessage {
            vql_response: None,
            ping: Some(Default::default()),
            ..rows(&own)
        };
        assert!(matches!(
            route(true, ping),
            Route::Refused("unexpected message", _)
        ));
    }

    #[test]
    fn statistics_are_told_apart() {
        let stats = |urgent, complete, status| {
            route(
                false,
                VeloMessage {
                    session_id: flow(1, "C.00000000000000aa"),
                    urgent,
                    flow_stats: Some(agent::FlowStats {
                        flow_complete: complete,
                        query_status: vec![VeloStatus {
                            status,
                            ..Default::default()
                        }],
                        ..Default::default()
                    }),
                    ..Default::default()
                },
            )
        };
        let route = |marker, always| Route::Stats { marker, always };
        assert_eq!(stats(false, false, 4), route(false, false));
        assert_eq!(stats(false, true, 0), route(true, true));
        assert_eq!(
            stats(true, true, 0),
            route(false, true),
            "it overtook its rows"
        );
        assert_eq!(stats(true, true, 11), route(false, true));
        assert_eq!(
            stats(false, true, 11),
            route(false, true),
            "nobody's last word"
        );
        assert_eq!(
            stats(true, false, 4),
            route(false, true),
            "the answer to a question"
        );
    }
}
