use super::{super::config::HttpServerConfig, *};
use crate::json::Envelope;

struct World {
    state: State,
    config: HttpServerConfig,
}

impl World {
    fn new(bytes: usize, events: usize, age: Duration) -> Self {
        let config = HttpServerConfig::builder().event_store(bytes, events, age).build().unwrap();
        let mut state = State::new(SessionKind::Session);
        state.revision = Some(Revision::R2025_06_18);
        Self { state, config }
    }

    fn say(&mut self, message: &str) {
        let payload = Bytes::copy_from_slice(message.as_bytes());
        self.state.send(payload, &Envelope::peek(message.as_bytes()).unwrap(), &self.config);
        self.check();
    }

    fn ask(&mut self, id: &str) -> (u64, u64) {
        let mut asked =
            Asked { ids: Parts::from_elem(Bytes::copy_from_slice(id.as_bytes()), 1), ..Asked::default() };
        let mut body = Some(Bytes::from_static(b"{}"));
        let cx = &mut Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(Some(place))) = self.state.poll_enter(cx, &mut body, &mut asked, 1000) else {
            panic!("not let in");
        };
        place
    }

    /// All that goes out of a stream now, as text, and whether it has ended.
    fn take(&mut self, place: (u64, u64)) -> (String, bool) {
        let cx = &mut Context::from_waker(Waker::noop());
        let mut text = Vec::new();
        loop {
            match self.state.poll_events(cx, place, &self.config) {
                Poll::Ready(Some(pieces)) => {
                    for piece in [pieces.first].into_iter().chain(pieces.rest).flatten() {
                        text.extend_from_slice(&piece);
                    }
                }
                Poll::Ready(None) => return (String::from_utf8(text).unwrap(), true),
                Poll::Pending => return (String::from_utf8(text).unwrap(), false),
            }
            self.check();
        }
    }

    /// The sums are what they are sums of.
    fn check(&self) {
        let all = || self.state.streams.iter().chain(&self.state.finished).chain([&self.state.listen]);
        let sum = |of: fn(&Stream) -> (usize, usize)| {
            all().map(of).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
        };
        let held = |stream: &Stream| (stream.log.iter().map(Event::cost).sum(), stream.log.len());
        assert_eq!(self.state.held, sum(held));
        let queued = |stream: &Stream| if stream.is_attached() { stream.undelivered() } else { (0, 0) };
        assert_eq!(self.state.queued, sum(queued));
    }
}

fn note(n: u32) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"{n}"}}"#)
}

fn answer(id: &str, text: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"{text}"}}"#)
}

const LONG: Duration = Duration::from_secs(1000);

#[tokio::test]
async fn what_waits_for_nobody_is_bounded_and_its_loss_is_told() {
    let mut world = World::new(1 << 20, 4, LONG);
    for n in 0..10 {
        world.say(&note(n));
    }
    assert_eq!(world.state.held.1, 4);
    let place = world.state.listen(Duration::ZERO, None);
    let (text, ended) = world.take(place);
    assert!(text.starts_with(": 6 events are no longer kept\n\nid: 0-7\n"), "{text}");
    assert_eq!((text.matches("data: ").count(), ended), (4, false));
    // Those that somebody is there for are no store.
    for n in 10..20 {
        world.say(&note(n));
    }
    assert_eq!(world.take(place).0.matches("data: ").count(), 10);
    assert_eq!(world.state.held.1, 4, "the last ones, for who comes back");
    // Behind the last four nothing is missing; before them something is.
    let place = world.state.resume(b"0-18").unwrap();
    assert_eq!(world.take(place).0.matches("data: ").count(), 2);
    let place = world.state.resume(b"0-3").unwrap();
    assert!(world.take(place).0.starts_with(": 13 events"));
    for unknown in [&b"0-21"[..], b"1-0", b"x", b"0-", b"-1", b"0--1", b"99999999999999999999-0", b"\xff-0"] {
        assert_eq!(world.state.resume(unknown), Err(NoResume::Unknown), "{unknown:?}");
    }
}

#[tokio::test]
async fn bytes_and_age_are_limits_too() {
    let mut world = World::new(1000, 1000, LONG);
    for n in 0..100 {
        world.say(&note(n));
    }
    assert!(world.state.held.0 <= 1000);
    let mut world = World::new(1 << 20, 1000, Duration::ZERO);
    for n in 0..3 {
        world.say(&note(n));
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(world.state.held.1 <= 1, "each is too old when the next comes");
}

#[tokio::test]
async fn an_id_from_the_future_takes_nothing_from_a_stream_that_is_over() {
    let mut world = World::new(1 << 20, 100, LONG);
    let place = world.ask("7");
    world.state.stream(place, Duration::ZERO);
    world.say(&answer("7", "x"));
    assert!(world.take(place).1);
    for last in [&b"1-2"[..], b"1-18446744073709551615"] {
        assert_eq!(world.state.resume(last), Err(NoResume::Unknown));
        assert_eq!(world.state.finished.len(), 1, "it is where it was");
    }
    assert_eq!(world.state.resume(b"1-1"), Err(NoResume::Complete));
    let place = world.state.resume(b"1-0").unwrap();
    assert!(world.take(place).0.contains(&answer("7", "x")));
}

#[tokio::test]
async fn an_answer_that_is_not_kept_leaves_an_error() {
    let mut world = World::new(2000, 100, LONG);
    let place = world.ask("7");
    world.state.stream(place, Duration::ZERO);
    world.state.detach(place, &world.config);
    let long = "x".repeat(10_000);
    // Alone it is kept, however large it is.
    world.say(&answer("7", &long));
    assert!(world.state.held.0 > 10_000);
    world.say(&note(1));
    assert!(world.state.held.0 < 2000);
    let place = world.state.resume(format!("{}-0", place.0).as_bytes()).unwrap();
    let (text, ended) = world.take(place);
    assert!(text.contains(r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32603"#), "{text}");
    assert!(ended);
}

#[tokio::test]
async fn streams_that_are_complete_go_first() {
    let mut world = World::new(1 << 20, 6, LONG);
    let mut places = Vec::new();
    for id in ["1", "2", "3"] {
        let place = world.ask(id);
        world.state.stream(place, Duration::ZERO);
        world.say(&note(0));
        world.say(&answer(id, ""));
        assert!(world.take(place).1);
        places.push(place);
    }
    assert_eq!(world.state.finished.len(), 3);
    assert_eq!(world.state.resume(b"1-2"), Err(NoResume::Complete));
    world.say(&note(1));
    assert_eq!(world.state.finished.len(), 2);
    assert_eq!(world.state.resume(b"1-1"), Err(NoResume::Unknown));
    let place = world.state.resume(b"3-1").unwrap();
    let (text, ended) = world.take(place);
    assert!(text.starts_with("id: 3-2\ndata: ") && ended, "{text}");
    assert_eq!(world.state.finished.len(), 2, "kept on, in case that connection broke as well");
}

#[tokio::test]
async fn answers_that_nobody_comes_back_for_leave_nothing() {
    let mut world = World::new(1 << 20, 4, LONG);
    for n in 0..100 {
        let place = world.ask(&n.to_string());
        world.state.stream(place, Duration::ZERO);
        world.state.detach(place, &world.config);
        world.say(&answer(&n.to_string(), ""));
        assert!(world.state.streams.len() <= 5, "{n}");
    }
    let place = world.state.resume(b"100-0").unwrap();
    assert!(world.take(place).0.contains(r#""id":99"#));
}

#[tokio::test]
async fn a_stream_that_stalls_is_taken_away() {
    let mut world = World::new(1 << 20, 100, LONG);
    let place = world.state.listen(Duration::ZERO, None);
    let long = format!(r#"{{"jsonrpc":"2.0","method":"{}"}}"#, "x".repeat(1000));
    let cx = &mut Context::from_waker(Waker::noop());
    while world.state.poll_ready(cx, 10_000).is_ready() {
        world.say(&long);
    }
    world.state.drop_stalled(&world.config);
    world.check();
    assert!(world.state.poll_ready(cx, 10_000).is_ready());
    assert_eq!(world.take(place), (String::new(), true));
    let place = world.state.listen(Duration::ZERO, None);
    assert!(world.take(place).0.contains("xxx"), "kept for who comes back");
}

/// Whatever comes in whatever order: no sum is wrong, nothing is kept without bound, and nobody waits for what cannot come.
#[tokio::test]
async fn any_order_of_things_leaves_nobody_waiting() {
    let cx = &mut Context::from_waker(Waker::noop());
    for seed in 1..400_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut pick = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut world = World::new(3000, 6, LONG);
        if seed % 2 == 0 {
            world.state.revision = Some(Revision::R2025_11_25);
        }
        let mut places: Vec<(u64, u64)> = Vec::new();
        let mut open: Vec<u64> = Vec::new();
        let mut id = 0;
        for _ in 0..120 {
            match pick(8) {
                0 | 1 if open.len() < 5 => {
                    id += 1;
                    open.push(id);
                    places.push(world.ask(&id.to_string()));
                }
                2 if !open.is_empty() => {
                    let id = open.swap_remove(pick(open.len() as u64) as usize);
                    let long = "x".repeat(if pick(3) == 0 { 4000 } else { 1 });
                    world.say(&answer(&id.to_string(), &long));
                }
                3 if !open.is_empty() => {
                    let id = open.swap_remove(pick(open.len() as u64) as usize);
                    world.state.cancel(id.to_string().as_bytes());
                    world.check();
                    if pick(2) == 0 {
                        world.say(&answer(&id.to_string(), "late"));
                    }
                }
                4 => world.say(&note(7)),
                5 if !places.is_empty() => {
                    let place = places.swap_remove(pick(places.len() as u64) as usize);
                    world.state.detach(place, &world.config);
                    world.check();
                }
                6 if id > 0 => {
                    let last = format!("{}-{}", pick(id + 1), pick(3));
                    if let Ok(place) = world.state.resume(last.as_bytes()) {
                        places.push(place);
                    }
                    world.check();
                }
                7 if !places.is_empty() => {
                    let at = pick(places.len() as u64) as usize;
                    let place = places[at];
                    let streaming = world
                        .state
                        .find(place.0)
                        .is_none_or(|stream| stream.streaming || stream.holder != place.1);
                    if streaming {
                        if world.take(place).1 {
                            places.swap_remove(at);
                        }
                    } else {
                        match world.state.poll_answer(cx, place) {
                            Poll::Ready(Answer::Message(_)) => {
                                places.swap_remove(at);
                            }
                            Poll::Ready(Answer::Events) => world.state.stream(place, Duration::ZERO),
                            Poll::Pending => {}
                        }
                        world.check();
                    }
                }
                _ => {}
            }
            assert!(world.state.streams.len() <= 5 + places.len() + 7, "seed {seed}");
            assert!(world.state.unanswered() <= open.len(), "seed {seed}");
        }
        for id in open {
            match pick(2) {
                0 => world.state.cancel(id.to_string().as_bytes()),
                _ => world.say(&answer(&id.to_string(), "")),
            }
        }
        assert!(world.state.poll_quiet(cx).is_ready(), "seed {seed}");
        for place in places {
            let posts =
                world.state.find(place.0).is_some_and(|stream| stream.holder == place.1 && !stream.streaming);
            if posts && matches!(world.state.poll_answer(cx, place), Poll::Ready(Answer::Message(_))) {
                continue;
            }
            if posts {
                world.state.stream(place, Duration::ZERO);
            }
            assert!(world.take(place).1 || place.0 == LISTEN, "seed {seed}");
        }
    }
}
