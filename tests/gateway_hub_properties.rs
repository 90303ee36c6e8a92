//! Clients that all use the same few ids, in any interleaving, against a model: each gets its own messages, in order, with
//! its own ids, and not one byte else changed.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg(feature = "gateway")]

use std::{collections::VecDeque, sync::Arc};

use framewire::{
    gateway::{Backend, Hub, HubConfig, HubSession},
    transport::MemoryTransport,
};
use proptest::prelude::*;
use serde_json::Value;

#[path = "support/backends.rs"]
mod backends;
use backends::{Played, send, text, within};

const CLIENTS: usize = 4;
const IDS: [&str; 5] = ["1", "\"1\"", "\"\\u0031\"", "-5", "123456789012345678901234567890"];
const NUMBER: &str = "900719925474099312345.6700";

#[derive(Debug, Clone)]
enum Step {
    Ask {
        client: usize,
        id: usize,
    },
    /// The server answers one of what it has seen and not answered.
    Answer {
        which: usize,
    },
    Progress {
        which: usize,
    },
    Cancel {
        client: usize,
        which: usize,
    },
    Leave {
        client: usize,
    },
    Receive {
        client: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (client, which) = (0..CLIENTS, 0..64_usize);
    prop_oneof![
        6 => (client.clone(), 0..IDS.len()).prop_map(|(client, id)| Step::Ask { client, id }),
        4 => which.clone().prop_map(|which| Step::Answer { which }),
        2 => which.clone().prop_map(|which| Step::Progress { which }),
        1 => (client.clone(), which).prop_map(|(client, which)| Step::Cancel { client, which }),
        1 => client.clone().prop_map(|client| Step::Leave { client }),
        4 => client.prop_map(|client| Step::Receive { client }),
    ]
}

/// A request under way, as the model knows it.
struct Asked {
    client: usize,
    id: &'static str,
    tag: u32,
    /// The number that the hub gave it.
    number: String,
}

struct World {
    hub: Hub,
    server: MemoryTransport,
    clients: Vec<HubSession>,
    asked: Vec<Asked>,
    /// What each client is to get.
    expected: Vec<VecDeque<String>>,
    tag: u32,
}

fn request(id: &str, token: &str, tag: u32) -> String {
    format!(
        r#"{{"method":"m", "id" :{id},"params":{{"id":{id},"n":{NUMBER},"_meta":{{"progressToken":{token}}},"tag":{tag}}},"jsonrpc":"2.0"}}"#
    )
}

fn answer(id: &str, tag: u32) -> String {
    format!(r#"{{"jsonrpc":"2.0","result":{{"tag":{tag}, "n":{NUMBER},"id":"{tag}"}},"id":{id} }}"#)
}

fn progress(token: &str, tag: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"tag":{tag},"progressToken": {token}}}}}"#
    )
}

impl World {
    async fn new() -> Self {
        let (played, mut servers) = Played::new();
        let hub = Hub::new(vec![Arc::new(played) as Arc<dyn Backend>], HubConfig::default());
        let server = within(servers.recv()).await.unwrap();
        let clients = (0..CLIENTS).map(|_| hub.attach()).collect();
        Self { hub, server, clients, asked: Vec::new(), expected: vec![VecDeque::new(); CLIENTS], tag: 0 }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Ask { client, id } => {
                self.tag += 1;
                let (id, tag) = (IDS[id], self.tag);
                send(&mut self.clients[client], request(id, id, tag)).await;
                let seen = text(&mut self.server).await;
                let number = serde_json::from_str::<Value>(&seen).unwrap()["id"].to_string();
                // Its own id is data in params and stays.
                let expected = request(&number, &number, tag).replacen(
                    &format!(r#""params":{{"id":{number}"#),
                    &format!(r#""params":{{"id":{id}"#),
                    1,
                );
                assert_eq!(seen, expected);
                assert!(self.asked.iter().all(|other| other.number != number));
                self.asked.push(Asked { client, id, tag, number });
            }
            Step::Answer { which } if !self.asked.is_empty() => {
                let asked = self.asked.swap_remove(which % self.asked.len());
                send(&mut self.server, answer(&asked.number, asked.tag)).await;
                self.expected[asked.client].push_back(answer(asked.id, asked.tag));
            }
            Step::Progress { which } if !self.asked.is_empty() => {
                let asked = &self.asked[which % self.asked.len()];
                send(&mut self.server, progress(&asked.number, asked.tag)).await;
                self.expected[asked.client].push_back(progress(asked.id, asked.tag));
            }
            Step::Cancel { client, which } => self.cancel(client, which).await,
            Step::Leave { client } => {
                // What the server has sent is there before the client goes, or it would be late.
                while !self.expected[client].is_empty() {
                    self.receive(client).await;
                }
                self.clients[client] = self.hub.attach();
                let (mut left, rest): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut self.asked).into_iter().partition(|asked| asked.client == client);
                self.asked = rest;
                while !left.is_empty() {
                    let cancelled = text(&mut self.server).await;
                    let is = |asked: &Asked| cancelled.contains(&format!(r#""requestId":{},"#, asked.number));
                    let at = left.iter().position(is).unwrap();
                    left.remove(at);
                }
            }
            Step::Receive { client } if !self.expected[client].is_empty() => self.receive(client).await,
            _ => {}
        }
    }

    /// Of two requests with one id it could be either, so only one that is alone is cancelled.
    async fn cancel(&mut self, client: usize, which: usize) {
        let same = |one: &str, other: &str| {
            serde_json::from_str::<Value>(one).unwrap() == serde_json::from_str::<Value>(other).unwrap()
        };
        let own: Vec<usize> = (0..self.asked.len())
            .filter(|at| self.asked[*at].client == client)
            .filter(|at| {
                let is = |other: &&Asked| other.client == client && same(other.id, self.asked[*at].id);
                self.asked.iter().filter(is).count() == 1
            })
            .collect();
        if own.is_empty() {
            return;
        }
        // What is answered on the way is under way still, as far as the hub knows.
        while !self.expected[client].is_empty() {
            self.receive(client).await;
        }
        let asked = self.asked.swap_remove(own[which % own.len()]);
        let cancelled = |id: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId": {id} }}}}"#
            )
        };
        send(&mut self.clients[client], cancelled(asked.id)).await;
        assert_eq!(text(&mut self.server).await, cancelled(&asked.number));
        // The server may not have seen it yet: its answer reaches nobody.
        send(&mut self.server, answer(&asked.number, asked.tag)).await;
    }

    async fn receive(&mut self, client: usize) {
        let expected = self.expected[client].pop_front().unwrap();
        assert_eq!(text(&mut self.clients[client]).await, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 64, ..ProptestConfig::default() })]

    #[test]
    fn each_gets_its_own(steps in prop::collection::vec(step(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in steps {
                world.take(step).await;
            }
            for client in 0..CLIENTS {
                while !world.expected[client].is_empty() {
                    world.receive(client).await;
                }
            }
            // Whatever else the server sends is for nobody; then there is nothing left for anybody.
            world.clients.clear();
            within(world.hub.close()).await;
            assert_eq!(world.hub.status().counts().clients, 0);
            assert_eq!(world.hub.status().counts().in_flight, 0);
        });
    }
}
