//! Requests to a judge, by OpenAI's protocol of chat completions, with retries.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use backon::{BlockingRetryable, ExponentialBuilder};
use reqwest::StatusCode;
use reqwest::blocking::{Client, Response};
use reqwest::header::RETRY_AFTER;
use serde::{Deserialize, Serialize};

use program::outcome::printable;

use crate::error::{EvaluationError, refuse_setting};

/// Settings of the requests to a judge.
#[derive(Clone, Debug)]
pub struct JudgeSettings {
    /// Address of the judge; requests go to `/chat/completions` below it.
    pub url: String,
    /// Name of the model that answers.
    pub model: String,
    /// Sampling temperature.
    pub temperature: f64,
    /// Random seed for the judge's sampling.
    pub seed: u64,
    /// Maximum number of tokens of an answer; `None` for the judge's own limit.
    pub max_tokens: Option<u32>,
    /// Time limit of a request.
    pub timeout: Duration,
    /// Maximum number of requests for a question.
    pub tries: usize,
    /// Pause after the first failure. It doubles after each further failure, up to [`MAX_PAUSE`].
    pub pause: Duration,
}

/// Maximum pause between two requests, unless the judge asks for a longer one.
pub const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Maximum pause that a judge may ask for.
pub const MAX_REQUESTED_PAUSE: Duration = Duration::from_secs(600);

/// Maximum size of a judge's response, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// Client of a judge.
pub struct Judge {
    settings: JudgeSettings,
    address: reqwest::Url,
    key: Option<String>,
    client: Client,
}

/// Answer of a judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether the answer is complete, as opposed to truncated.
    pub whole: bool,
    /// Text of the answer.
    pub text: String,
    /// Name of the model that answered, as the judge reports it.
    pub model: String,
}

/// Body of a request.
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

/// Fields of a completion that are read.
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

/// Reason of a failed request.
enum Trouble {
    /// A temporary failure, with the pause that the judge asks for.
    Passing { problem: String, after: Option<Duration> },
    /// A permanent failure.
    Lasting(String),
    /// The comparison was stopped.
    Stopped,
}

impl Judge {
    /// Creates a client for this address, with an API key if the judge needs one.
    ///
    /// # Errors
    ///
    /// [`EvaluationError::Setting`] for an invalid address, an address with a password, and a setting that is out of
    /// its range; [`EvaluationError::Judge`] if the system offers no encryption.
    pub fn new(settings: JudgeSettings, key: Option<String>) -> Result<Self, EvaluationError> {
        let settings = JudgeSettings { url: settings.url.trim_end_matches('/').to_owned(), ..settings };
        let allowed = "an address such as http://localhost:8000/v1";
        let address = format!("{}/chat/completions", settings.url);
        let address = reqwest::Url::parse(&address)
            .ok()
            .filter(|address| ["http", "https"].contains(&address.scheme()))
            .ok_or_else(|| refuse_setting("judge", allowed, format!("{:?}", settings.url)))?;
        if !address.username().is_empty() || address.password().is_some() {
            return Err(refuse_setting(
                "judge",
                "an address without a password; set LM_JUDGE_KEY to the key",
                "an address with one".to_owned(),
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
            .map_err(|error| EvaluationError::Judge { url: settings.url.clone(), problem: causes(&error) })?;
        Ok(Self { settings, address, key, client })
    }

    /// The settings of the requests.
    pub fn settings(&self) -> &JudgeSettings {
        &self.settings
    }

    /// The body of the request for a question.
    ///
    /// # Errors
    ///
    /// An error of `serde_json`, which text does not cause.
    pub fn body(&self, question: &str) -> Result<String, EvaluationError> {
        let JudgeSettings { model, temperature, seed, max_tokens, .. } = &self.settings;
        let body = Body {
            model,
            messages: [Said { role: "user", content: question }],
            temperature: *temperature,
            seed: *seed,
            max_tokens: *max_tokens,
        };
        serde_json::to_string(&body).map_err(|error| self.fail(error.to_string()))
    }

    /// Sends a body of [`Judge::body`] and returns the answer, or `None` after `stops` ended the comparison. Calls
    /// `waits` before each pause, with its reason and duration.
    ///
    /// # Errors
    ///
    /// [`EvaluationError::Judge`] if the judge does not answer: immediately for a permanent failure, and after the
    /// maximum number of requests for a temporary one.
    pub fn ask(
        &self,
        body: &str,
        stops: &dyn Fn() -> bool,
        waits: &dyn Fn(&str, Duration),
    ) -> Result<Option<Answer>, EvaluationError> {
        let JudgeSettings { tries, pause, .. } = self.settings;
        let pauses = ExponentialBuilder::new()
            .with_min_delay(pause)
            .with_max_delay(MAX_PAUSE)
            .with_max_times(tries - 1)
            .with_jitter();
        let once = || if stops() { Err(Trouble::Stopped) } else { self.once(body) };
        let answer = once
            .retry(pauses)
            .when(|trouble| matches!(trouble, Trouble::Passing { .. }))
            .notify(|trouble, pause| {
                if let Trouble::Passing { problem, after } = trouble {
                    // Waits as long as the judge asks for, up to the limit.
                    let pause = after.map_or(pause, |after| after.min(MAX_REQUESTED_PAUSE));
                    waits(problem, pause);
                    sleep(pause, stops);
                }
            })
            // The pause is above, where `stops` can end it.
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
            // A proxy before the judge may report such statuses temporarily.
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
            if bytes.len() as u64 > MAX_BYTES {
                return Err(passing(format!("expected a response of at most {MAX_BYTES} bytes, got more")));
            }
            if begun.elapsed() > self.settings.timeout {
                return Err(passing(format!("expected a response within {} s", self.settings.timeout.as_secs())));
            }
        }
    }

    fn fail(&self, problem: String) -> EvaluationError {
        EvaluationError::Judge { url: self.settings.url.clone(), problem }
    }
}

fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status)
}

/// The pause that the judge asks for, in seconds or until a date.
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

/// Sleeps for a time, or until `stops` ends the comparison.
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

/// The beginning of a response, for an error message.
fn beginning(text: &str) -> String {
    const TOLD: usize = 200;
    let line = printable(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    match line.char_indices().nth(TOLD) {
        _ if line.is_empty() => String::new(),
        None => format!(", got {line}"),
        Some((end, _)) => format!(", got {}...", &line[..end]),
    }
}

/// An error with all of its causes, because reqwest's own message omits them.
fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> JudgeSettings {
        JudgeSettings {
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
        let address = "judge: expected an address such as http://localhost:8000/v1, got";
        assert_eq!(refused(settings("localhost")), format!("{address} \"localhost\""));
        assert_eq!(refused(settings("ftp://a/b")), format!("{address} \"ftp://a/b\""));
        let secret = refused(settings("http://me:secret@localhost/v1"));
        assert!(secret.starts_with("judge: expected an address without a password") && !secret.contains("secret"));
        let other = JudgeSettings { temperature: f64::NAN, ..settings("http://a") };
        assert_eq!(refused(other), "temperature: expected a number of 0 or more, got NaN");
        assert_eq!(refused(JudgeSettings { tries: 0, ..settings("http://a") }), "tries: expected at least 1, got 0");
    }
}
