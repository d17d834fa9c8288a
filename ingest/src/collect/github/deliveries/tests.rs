//! Deliveries that a scripted GitHub lists.

use super::*;
use crate::collect::script::{Here, Script, at};

const LIST: &str = "/repos/acme/shop/hooks/7/deliveries?per_page=100";
const NOW: i64 = 1_795_694_400;

fn entry(id: u64, guid: &str, ago: u64) -> String {
    let delivered = at(NOW).minus(Duration::from_secs(ago));
    format!(r#"{{"id":{id},"guid":"{guid}","delivered_at":"{delivered}","status_code":502,"event":"push"}}"#)
}

fn list(entries: &[String]) -> String {
    format!("[{}]", entries.join(","))
}

fn delivery(script: &Script, id: u64, guid: &str) {
    let body = format!(
        r#"{{"id":{id},"guid":"{guid}","event":"push","request":{{"headers":{{"X-GitHub-Event":"push","X-Hub-Signature-256":"sha256=x"}},"payload":{{"ref":"refs/heads/main", "n":{id}}}}}}}"#
    );
    script.json(&format!("/repos/acme/shop/hooks/7/deliveries/{id}"), &body);
}

fn collector(script: &Arc<Script>, held: &Arc<Here>, redeliver: bool) -> Deliveries {
    let hook = Hook::Repository { name: "acme/shop".into(), id: Some(7) };
    let held = Arc::clone(held) as Arc<dyn Held>;
    Deliveries::new(script.api(), hook, "hooks".into(), held, redeliver, Duration::from_secs(60))
}

#[tokio::test]
async fn what_is_not_held_is_fetched_as_it_was_sent_and_once() {
    let script = Script::new();
    let held = Arc::new(Here::default());
    held.know(["g2"]);
    let next =
        [("link", "<https://api.example/repos/acme/shop/hooks/7/deliveries?per_page=100&cursor=v1_2>; rel=\"next\"")];
    script.json_with(LIST, &list(&[entry(13, "g1", 100), entry(12, "g2", 200)]), &next);
    script.json(
        "/repos/acme/shop/hooks/7/deliveries?per_page=100&cursor=v1_2",
        &list(&[entry(11, "g1", 300), entry(10, "g3", 400)]),
    );
    for (id, guid) in [(13, "g1"), (11, "g1"), (10, "g3")] {
        delivery(&script, id, guid);
    }
    let collector = collector(&script, &held, false);
    let mut cursors = Cursors::default();
    let mut items = Vec::new();
    for expected in [Next::Now, Next::After(Duration::from_secs(60))] {
        let page = collector.page(&cursors, at(NOW)).await.unwrap();
        assert_eq!(page.next, expected);
        held.know(page.items.iter().map(|item| item.headers["x-github-delivery"].to_str().unwrap()));
        items.extend(page.items);
        cursors.extend(page.cursors);
    }
    let guids: Vec<_> = items.iter().map(|item| item.headers["x-github-delivery"].to_str().unwrap()).collect();
    assert_eq!(guids, ["g1", "g3"]);
    assert_eq!(items[0].body, br#"{"ref":"refs/heads/main", "n":13}"#[..]);
    assert_eq!(items[0].headers["x-github-event"], "push");
    assert!(!items[0].headers.contains_key("x-hub-signature-256"), "it does not sign these bytes");
    // The next walk ends where this one began.
    script.asked();
    script.json_with(LIST, &list(&[entry(14, "g4", 70), entry(13, "g1", 100)]), &next);
    delivery(&script, 14, "g4");
    let page = collector.page(&cursors, at(NOW)).await.unwrap();
    assert_eq!((page.items.len(), page.next), (1, Next::After(Duration::from_secs(60))));
    assert_eq!(script.asked().len(), 2, "one page and one delivery");
    let settled = at(NOW).minus(SETTLED);
    assert_eq!(page.whole, Some((settled.minus(KEPT), settled)));
}

#[tokio::test]
async fn what_may_still_be_on_its_way_is_left_alone() {
    let script = Script::new();
    script.json(LIST, &list(&[entry(13, "g1", 5)]));
    let page = collector(&script, &Arc::default(), false).page(&Cursors::default(), at(NOW)).await.unwrap();
    assert!(page.items.is_empty());
    assert_eq!(page.cursors[0].1["done"], 0);
}

#[tokio::test]
async fn a_walk_whose_first_page_is_too_young_ends_the_next_one_all_the_same() {
    let script = Script::new();
    let held = Arc::new(Here::default());
    held.know(["g11", "g12", "g13"]);
    let second = "/repos/acme/shop/hooks/7/deliveries?per_page=100&cursor=v1_2";
    let next = [("link", format!("<https://api.example{second}>; rel=\"next\""))];
    let next: Vec<_> = next.iter().map(|(name, link)| (*name, link.as_str())).collect();
    script.json_with(LIST, &list(&[entry(14, "g14", 5)]), &next);
    script.json(second, &list(&[entry(12, "g12", 100), entry(11, "g11", 200)]));
    let collector = collector(&script, &held, false);
    let mut cursors = Cursors::default();
    for _ in 0..2 {
        cursors.extend(collector.page(&cursors, at(NOW)).await.unwrap().cursors);
    }
    script.asked();
    script.json_with(LIST, &list(&[entry(13, "g13", 70), entry(12, "g12", 100)]), &next);
    let page = collector.page(&cursors, at(NOW)).await.unwrap();
    assert_eq!(page.next, Next::After(Duration::from_secs(60)), "what was read is not read again");
    assert_eq!(script.asked().len(), 1);
}

#[tokio::test]
async fn one_that_ended_late_is_not_passed_because_a_later_one_ended_before() {
    let script = Script::new();
    let held = Arc::new(Here::default());
    held.know(["g12", "g15"]);
    script.json(LIST, &list(&[entry(15, "g15", 61), entry(14, "g14", 51), entry(12, "g12", 100)]));
    delivery(&script, 14, "g14");
    let collector = collector(&script, &held, false);
    let mut cursors = Cursors::default();
    let page = collector.page(&cursors, at(NOW)).await.unwrap();
    assert!(page.items.is_empty());
    cursors.extend(page.cursors);
    let page = collector.page(&cursors, at(NOW + 10)).await.unwrap();
    assert_eq!(page.items.len(), 1);
}

#[tokio::test]
async fn redelivery_is_asked_for_where_it_is_wanted() {
    let script = Script::new();
    script.json(LIST, &list(&[entry(13, "g1", 100)]));
    script.answer("/repos/acme/shop/hooks/7/deliveries/13/attempts", 202, &[], "");
    let page = collector(&script, &Arc::default(), true).page(&Cursors::default(), at(NOW)).await.unwrap();
    assert!(page.items.is_empty() && !page.cursors.is_empty());
    assert_eq!(script.asked().last().unwrap().0, "/repos/acme/shop/hooks/7/deliveries/13/attempts");
}

#[tokio::test]
async fn what_github_does_not_deliver_again_is_fetched_and_what_it_never_gives_holds_nothing_up() {
    let (script, held) = (Script::new(), Arc::new(Here::default()));
    script.json(LIST, &list(&[entry(14, "g2", 90), entry(13, "g1", 100)]));
    script.answer("/repos/acme/shop/hooks/7/deliveries/13/attempts", 422, &[], "");
    delivery(&script, 13, "g1");
    script.answer("/repos/acme/shop/hooks/7/deliveries/14/attempts", 403, &[], "");
    script.answer("/repos/acme/shop/hooks/7/deliveries/14", 403, &[], "");
    let page = collector(&script, &held, true).page(&Cursors::default(), at(NOW)).await.unwrap();
    assert_eq!((page.items.len(), page.lost.len()), (1, 1), "{:?}", page.lost);
    // One that fails each time, although the list is given.
    held.know(["g1"]);
    script.answer("/repos/acme/shop/hooks/7/deliveries/14", 501, &[], "");
    let collector = collector(&script, &held, false);
    let mut failures = 0;
    let page = loop {
        match collector.page(&Cursors::default(), at(NOW)).await {
            Ok(page) => break page,
            Err(_) => failures += 1,
        }
    };
    assert_eq!((failures, page.lost.len()), (FAILURES_MAX - 1, 1));
}

#[tokio::test]
async fn what_github_keeps_no_more_is_written_down_as_lost() {
    let script = Script::new();
    script.json(LIST, &list(&[entry(13, "g1", 100)]));
    script.answer("/repos/acme/shop/hooks/7/deliveries/13", 404, &[], "{\"message\":\"Not Found\"}");
    let page = collector(&script, &Arc::default(), false).page(&Cursors::default(), at(NOW)).await.unwrap();
    assert!(page.lost[0].contains("13 (g1)"), "{:?}", page.lost);
    let (from, to) = page.whole.unwrap();
    assert_eq!(from, to, "nothing is said about the time before");
}

#[tokio::test]
async fn where_a_cursor_is_refused_the_walk_begins_anew() {
    let (script, held) = (Script::new(), Arc::new(Here::default()));
    let second = "/repos/acme/shop/hooks/7/deliveries?per_page=100&cursor=v1_2";
    let link = format!("<https://api.example{second}>; rel=\"next\"");
    script.json_with(LIST, &list(&[entry(13, "g1", 100)]), &[("link", &link)]);
    delivery(&script, 13, "g1");
    let (collector, mut cursors) = (collector(&script, &held, false), Cursors::default());
    let first = collector.page(&cursors, at(NOW)).await.unwrap();
    assert_eq!((first.items.len(), first.next), (1, Next::Now));
    cursors.extend(first.cursors);
    held.know(["g1"]);
    script.answer(second, 422, &[], r#"{"message":"invalid cursor"}"#);
    let page = collector.page(&cursors, at(NOW)).await.unwrap();
    assert_eq!((page.items.len(), page.next), (0, Next::After(Duration::from_secs(60))));
    cursors.extend(page.cursors);
    script.json(second, &list(&[entry(10, "g3", 400)]));
    delivery(&script, 10, "g3");
    let mut items = Vec::new();
    for _ in 0..2 {
        let page = collector.page(&cursors, at(NOW)).await.unwrap();
        items.extend(page.items);
        cursors.extend(page.cursors);
    }
    assert_eq!(items.len(), 1, "the one that was not reached before, and no other");
}

#[tokio::test]
async fn days_that_github_keeps_no_more_are_not_called_whole() {
    let (script, held) = (Script::new(), Arc::new(Here::default()));
    held.know(["g1", "g2"]);
    script.json(LIST, &list(&[entry(13, "g1", 100)]));
    let (collector, mut cursors) = (collector(&script, &held, false), Cursors::default());
    cursors.extend(collector.page(&cursors, at(NOW)).await.unwrap().cursors);
    let later = at(NOW).plus(KEPT * 2);
    let delivered = later.minus(Duration::from_secs(200));
    script.json(LIST, &format!(r#"[{{"id":20,"guid":"g2","delivered_at":"{delivered}"}}]"#));
    let page = collector.page(&cursors, later).await.unwrap();
    assert_eq!(page.whole, Some((later.minus(KEPT), later.minus(SETTLED))));
    assert!(page.lost[0].contains("GitHub keeps them for three days"), "{:?}", page.lost);
}

#[tokio::test]
async fn the_webhook_is_found_by_the_address_of_the_source() {
    let script = Script::new();
    let hooks =
        r#"[{"id":1,"config":{"url":"https://other/x"}},{"id":7,"config":{"url":"https://pp/v1/events/hooks"}}]"#;
    script.json("/repos/acme/shop/hooks?per_page=100", hooks);
    script.json(LIST, "[]");
    let hook = Hook::Repository { name: "acme/shop".into(), id: None };
    let held = Arc::new(Here::default()) as Arc<dyn Held>;
    let collector = Deliveries::new(script.api(), hook, "hooks".into(), held, false, Duration::from_secs(60));
    assert!(collector.page(&Cursors::default(), at(NOW)).await.unwrap().items.is_empty());
}
