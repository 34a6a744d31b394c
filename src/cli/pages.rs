//! `wigwag completions` and `wigwag man`: what shells and manuals know of the command line, made from the command line itself.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use super::{End, print};
use crate::error::StartError;

/// Which shell.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    shell: Shell,
}

/// Where manual pages go.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page for wigwag and one for each command into this directory, which must be there; without it, print the
    /// first
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<(), End> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "wigwag", &mut script);
    print(&String::from_utf8_lossy(&script))
}

pub(super) fn man(args: &ManArgs) -> Result<(), End> {
    // As the generator does for each of the pages: nobody reads a page about help.
    let mut command = super::command().disable_help_subcommand(true);
    command.build();
    if let Some(dir) = &args.dir {
        return clap_mangen::generate_to(command, dir)
            .map_err(|error| StartError::file("write manual pages into", dir, &error, "name a directory").into());
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(|error| End::Fault(error.into()))?;
    print(&String::from_utf8_lossy(&page))
}
