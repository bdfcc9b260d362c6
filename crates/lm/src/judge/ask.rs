//! Asks a judge by OpenAI's protocol of chat completions, again and again where it may answer later.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use backon::{BlockingRetryable, ExponentialBuilder};
use reqwest::StatusCode;
use reqwest::blocking::{Client, Response};
use reqwest::header::RETRY_AFTER;
use serde::{Deserialize, Serialize};

use program::outcome::printable;

use crate::error::{LmError, refuse_setting};

/// How a judge is asked, whatever the question.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its address, which `/chat/completions` is added to.
    pub url: String,
    /// The model to answer.
    pub model: String,
    /// Divides logits.
    pub temperature: f64,
    /// Of what the judge draws.
    pub seed: u64,
    /// The most tokens of an answer; the judge's own limit where none is given.
    pub max_tokens: Option<u32>,
    /// The longest that is waited for an answer.
    pub timeout: Duration,
    /// How often a question is asked before it is given up.
    pub tries: usize,
    /// How long is waited behind the first time; twice as long each time after, up to [`LONGEST`].
    pub pause: Duration,
}

/// The longest that is waited before a question is asked again, unless the judge says how long.
pub const LONGEST: Duration = Duration::from_secs(60);

/// Limit of the waiting time that a judge may ask for.
pub const LONGEST_ASKED: Duration = Duration::from_secs(600);

/// Limit of bytes of a judge's response.
const MOST_BYTES: u64 = 4 << 20;

/// A judge that can be asked.
pub struct Judge {
    settings: Settings,
    address: reqwest::Url,
    key: Option<String>,
    client: Client,
}

/// What a judge answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether it said all that it wanted to.
    pub whole: bool,
    /// What it said.
    pub text: String,
    /// The model that answered, as the judge names it.
    pub model: String,
}

/// A question as it is sent.
#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: [Said<'a>; 1],
    temperature: f64,
    seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
}

#[derive(Serialize)]
struct Said<'a> {
    role: &'static str,
    content: &'a str,
}

/// What of a completion is read.
#[derive(Deserialize)]
struct Completion {
    #[serde(default)]
    model: Option<String>,
    choices: Vec<Completed>,
}

#[derive(Deserialize)]
struct Completed {
    message: Reply,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    content: Option<String>,
}

/// Why there is no answer.
enum Trouble {
    /// It may pass; the judge may have said when.
    Passing { problem: String, after: Option<Duration> },
    /// It stays.
    Lasting(String),
    /// Nobody waits for one any more.
    Stopped,
}

impl Judge {
    /// One at this address, with a key where it needs one.
    ///
    /// # Errors
    ///
    /// [`LmError::Setting`] for an address that is none or has a password in it, and for settings that are out of their range;
    /// [`LmError::Judge`] where the system has no encryption to offer.
    pub fn new(settings: Settings, key: Option<String>) -> Result<Self, LmError> {
        let settings = Settings { url: settings.url.trim_end_matches('/').to_owned(), ..settings };
        let allowed = "an address as http://localhost:8000/v1";
        let address = format!("{}/chat/completions", settings.url);
        let address = reqwest::Url::parse(&address)
            .ok()
            .filter(|address| ["http", "https"].contains(&address.scheme()))
            .ok_or_else(|| refuse_setting("judge", allowed, format!("{:?}", settings.url)))?;
        if !address.username().is_empty() || address.password().is_some() {
            return Err(refuse_setting(
                "judge",
                "an address without a password; LM_JUDGE_KEY has the key",
                "one with it".to_owned(),
            ));
        }
        if !(settings.temperature >= 0.0 && settings.temperature.is_finite()) {
            return Err(refuse_setting("temperature", "a number of 0 or more", settings.temperature));
        }
        if settings.tries == 0 {
            return Err(refuse_setting("tries", "at least 1", "0"));
        }
        if settings.max_tokens == Some(0) {
            return Err(refuse_setting("max_tokens", "at least 1", "0"));
        }
        if settings.timeout.is_zero() {
            return Err(refuse_setting("timeout", "at least 1 second", "0"));
        }
        let client = Client::builder()
            .timeout(settings.timeout)
            .user_agent(concat!("lm/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| LmError::Judge { url: settings.url.clone(), problem: causes(&error) })?;
        Ok(Self { settings, address, key, client })
    }

    /// How it is asked.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is sent to ask this.
    ///
    /// # Errors
    ///
    /// Where `serde_json` fails, which it does not for text.
    pub fn body(&self, question: &str) -> Result<String, LmError> {
        let Settings { model, temperature, seed, max_tokens, .. } = &self.settings;
        let body = Body {
            model,
            messages: [Said { role: "user", content: question }],
            temperature: *temperature,
            seed: *seed,
            max_tokens: *max_tokens,
        };
        serde_json::to_string(&body).map_err(|error| self.fail(error.to_string()))
    }

    /// What the judge answers to [`Judge::body`]; none once `stops` says that nobody waits for it. `waits` is told why and for how
    /// long there is a pause.
    ///
    /// # Errors
    ///
    /// [`LmError::Judge`] where it answers none: at once if that will stay so, and otherwise behind as many tries as the settings say.
    pub fn ask(
        &self,
        body: &str,
        stops: &dyn Fn() -> bool,
        waits: &dyn Fn(&str, Duration),
    ) -> Result<Option<Answer>, LmError> {
        let Settings { tries, pause, .. } = self.settings;
        let pauses = ExponentialBuilder::new()
            .with_min_delay(pause)
            .with_max_delay(LONGEST)
            .with_max_times(tries - 1)
            .with_jitter();
        let once = || if stops() { Err(Trouble::Stopped) } else { self.once(body) };
        let answer = once
            .retry(pauses)
            .when(|trouble| matches!(trouble, Trouble::Passing { .. }))
            .notify(|trouble, pause| {
                if let Trouble::Passing { problem, after } = trouble {
                    // Waits as long as the judge asks for, up to the limit.
                    let pause = after.map_or(pause, |after| after.min(LONGEST_ASKED));
                    waits(problem, pause);
                    sleep(pause, stops);
                }
            })
            // Done above, where it can be ended.
            .sleep(|_| ())
            .call();
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(Trouble::Stopped) => Ok(None),
            Err(Trouble::Lasting(problem)) => Err(self.fail(problem)),
            Err(Trouble::Passing { problem, .. }) => Err(self.fail(format!("{problem}, {tries} times"))),
        }
    }

    fn once(&self, body: &str) -> Result<Answer, Trouble> {
        let request = self.client.post(self.address.clone()).header("content-type", "application/json");
        let request = match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        let passing = |error: reqwest::Error| Trouble::Passing { problem: causes(&error.without_url()), after: None };
        let response = request.body(body.to_owned()).send().map_err(|error| match error.is_builder() {
            true => Trouble::Lasting(causes(&error.without_url())),
            false => passing(error),
        })?;
        let status = response.status();
        let after = after(&response);
        let text = self.text(response)?;
        if !status.is_success() {
            let problem = format!("{status}{}", beginning(&text));
            return Err(match is_passing(status) {
                true => Trouble::Passing { problem, after },
                false => Trouble::Lasting(problem),
            });
        }
        let completion = strict_json::from_str(&text);
        match completion.map(|Completion { model, choices }| (model, choices.into_iter().next())) {
            Ok((model, Some(Completed { message, finish_reason }))) => Ok(Answer {
                whole: finish_reason.as_deref() != Some("length"),
                text: message.content.unwrap_or_default(),
                model: model.unwrap_or_else(|| self.settings.model.clone()),
            }),
            // What stands between here and the judge may say such things for a while.
            _ => Err(Trouble::Passing {
                problem: format!("expected a chat completion{}", beginning(&text)),
                after: None,
            }),
        }
    }

    /// The response's body, limited in length and in time.
    fn text(&self, mut response: Response) -> Result<String, Trouble> {
        let passing = |problem: String| Trouble::Passing { problem, after: None };
        let begun = Instant::now();
        let (mut bytes, mut part) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            match response.read(&mut part).map_err(|error| passing(causes(&error)))? {
                0 => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
                length => bytes.extend_from_slice(&part[..length]),
            }
            if bytes.len() as u64 > MOST_BYTES {
                return Err(passing(format!("expected a response of at most {MOST_BYTES} bytes, got more")));
            }
            if begun.elapsed() > self.settings.timeout {
                return Err(passing(format!("expected a response within {} s", self.settings.timeout.as_secs())));
            }
        }
    }

    fn fail(&self, problem: String) -> LmError {
        LmError::Judge { url: self.settings.url.clone(), problem }
    }
}

fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status)
}

/// How long the judge asks to wait: seconds, or until a date.
fn after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    wait(text, now.as_secs())
}

fn wait(text: &str, now: u64) -> Option<Duration> {
    let seconds = text.trim().parse().ok().or_else(|| {
        let until = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp().as_second();
        Some(u64::try_from(until).unwrap_or(0).saturating_sub(now))
    })?;
    Some(Duration::from_secs(seconds))
}

/// Sleeps unless there is no more reason to.
fn sleep(pause: Duration, stops: &dyn Fn() -> bool) {
    const BREATH: Duration = Duration::from_millis(50);
    let begun = Instant::now();
    while !stops() {
        match pause.checked_sub(begun.elapsed()) {
            None | Some(Duration::ZERO) => return,
            Some(rest) => thread::sleep(rest.min(BREATH)),
        }
    }
}

/// As much of what was answered as helps to see what it is.
fn beginning(text: &str) -> String {
    const TOLD: usize = 200;
    let line = printable(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    match line.char_indices().nth(TOLD) {
        _ if line.is_empty() => String::new(),
        None => format!(", got {line}"),
        Some((end, _)) => format!(", got {}...", &line[..end]),
    }
}

/// An error and what caused it: of itself, reqwest's says little.
fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Settings {
        Settings {
            url: url.to_owned(),
            model: "m".to_owned(),
            temperature: 0.0,
            seed: 3,
            max_tokens: None,
            timeout: Duration::from_secs(1),
            tries: 1,
            pause: Duration::ZERO,
        }
    }

    #[test]
    fn a_judge_says_how_long_to_wait_in_seconds_or_by_a_date() {
        assert_eq!(wait("7", 0), Some(Duration::from_secs(7)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_770), Some(Duration::from_secs(7)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_780), Some(Duration::ZERO));
        assert_eq!(wait("soon", 0), None);
    }

    #[test]
    fn control_codes_in_what_a_judge_answers_are_not_printed() {
        assert_eq!(beginning("a\u{1b}[2Jb\r\n\u{7}c\u{202e}"), ", got a[2Jb c");
    }

    #[test]
    fn what_is_asked_is_a_chat_completion() {
        let judge = Judge::new(settings("http://localhost:1/v1/"), None).unwrap();
        assert_eq!(judge.settings().url, "http://localhost:1/v1");
        assert_eq!(judge.address.as_str(), "http://localhost:1/v1/chat/completions");
        assert_eq!(
            judge.body("a\"b").unwrap(),
            r#"{"model":"m","messages":[{"role":"user","content":"a\"b"}],"temperature":0.0,"seed":3}"#
        );
    }

    #[test]
    fn settings_out_of_their_range_are_refused() {
        let refused = |settings| Judge::new(settings, None).err().unwrap().to_string();
        let address = "judge: expected an address as http://localhost:8000/v1, got";
        assert_eq!(refused(settings("localhost")), format!("{address} \"localhost\""));
        assert_eq!(refused(settings("ftp://a/b")), format!("{address} \"ftp://a/b\""));
        let secret = refused(settings("http://me:secret@localhost/v1"));
        assert!(secret.starts_with("judge: expected an address without a password") && !secret.contains("secret"));
        let other = Settings { temperature: f64::NAN, ..settings("http://a") };
        assert_eq!(refused(other), "temperature: expected a number of 0 or more, got NaN");
        assert_eq!(refused(Settings { tries: 0, ..settings("http://a") }), "tries: expected at least 1, got 0");
    }
}
