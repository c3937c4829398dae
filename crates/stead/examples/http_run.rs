//! An HTTP server on a Unix socket, or a named pipe of Windows, that runs the caller's command as the caller.
//!
//! `http_run ADDRESS`, then as anybody: `curl --unix-socket ADDRESS -d 'id -un' http://server/`
//! The words of the body are the program and its arguments; no shell is involved.
//!
//! In `cargo xtask shell`:
//!
//! ```sh
//! http_run /run/demo.sock &
//! runuser -u alice -- curl -sS --unix-socket /run/demo.sock -d 'id -un' http://server/
//! ```

use std::convert::Infallible;
use std::error::Error;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use stead::local::{Address, ListenOptions, tokio as local};
use stead::{Command, Desktop, Primary, Token};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: http_run ADDRESS")?;
    let listener = local::Listener::new(ListenOptions::new().open_to_all().bind(&Address::path(address))?)?;
    loop {
        let mut connection = listener.accept().await?;
        tokio::spawn(async move {
            // Who it is comes from the connection; nothing in a request can change it.
            let token = connection.identify().await.and_then(|client| client.token()?.to_primary());
            let service = service_fn(|request| answer(request, &token));
            if let Err(error) =
                http1::Builder::new().serve_connection(TokioIo::new(connection), service).await
            {
                eprintln!("{error}");
            }
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    token: &stead::Result<Token<Primary>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = match token {
        Err(refused) => (StatusCode::FORBIDDEN, format!("{refused}\n").into()),
        Ok(token) => match run(request, token).await {
            Ok(output) => (StatusCode::OK, output),
            Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n").into()),
        },
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    Ok(response)
}

async fn run(request: Request<Incoming>, token: &Token<Primary>) -> Result<Vec<u8>, Box<dyn Error>> {
    let body = String::from_utf8(request.into_body().collect().await?.to_bytes().into())?;
    let mut words = body.split_whitespace();
    let program = words.next().ok_or("the body names no program")?;
    // Non-interactive, also where the caller sits before a screen: on Windows that has to be said.
    let output = Command::new(program).args(words).desktop(Desktop::none()).output_as_async(token).await?;
    Ok([output.stdout, output.stderr].concat())
}
