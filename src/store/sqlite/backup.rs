//! Copies the file and the large bodies while both are in use.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use rusqlite::{
    Connection, OptionalExtension,
    types::{ToSqlOutput, ValueRef},
};

use super::{
    bodies::{BodyRoot, create_directory, create_file, sync_parent},
    error::SqliteError,
    readers,
};

/// Copies the file to `target`, and the bodies to the directory beside it.
///
/// It copies the existing bodies first, and then the file as of one moment. Last come bodies that
/// the copy names and that were not there before, and the ends of those that have grown. So a body
/// is missing only if it was removed meanwhile. Then its job, or its output if the job runs again,
/// is removed from the copy.
pub(super) fn back_up(source: &Path, target: &Path) -> Result<(), SqliteError> {
    let backup = Backup {
        connection: readers::open(source)?,
        from: BodyRoot::of(source),
        to: BodyRoot::of(target),
        target: target.to_owned(),
    };
    // Bodies that an interrupted backup has left may be incomplete.
    if backup.to.path().exists() {
        let error = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(SqliteError::io(backup.to.path())(error));
    }
    // An empty file of ours, whose mode the copy keeps. It must not exist.
    create_file(target).map_err(SqliteError::io(target))?;
    let done = backup.run();
    if done.is_err() {
        let _ = fs::remove_file(target);
        let _ = fs::remove_dir_all(backup.to.path());
    }
    done
}

struct Backup {
    connection: Connection,
    from: BodyRoot,
    to: BodyRoot,
    target: PathBuf,
}

impl Backup {
    fn run(&self) -> Result<(), SqliteError> {
        create_directory(self.to.path())?;
        for (name, length) in named_files(&self.connection)? {
            self.copy_body(&name, length)?;
        }
        self.connection.pragma_update(None, "query_only", false)?;
        // As bytes, since a path need not be UTF-8.
        let target = ValueRef::Text(self.target.as_os_str().as_encoded_bytes());
        let target = ToSqlOutput::Borrowed(target);
        self.connection.execute("VACUUM INTO ?1", [target])?;
        let copy = Connection::open(&self.target)?;
        let mut named = named_files(&copy)?;
        let mut is_missing = false;
        for (name, length) in &named {
            if !self.copy_body(name, *length)? {
                forget_body(&copy, name)?;
                is_missing = true;
            }
        }
        if is_missing {
            count_again(&copy)?;
        }
        named.sort_unstable();
        self.remove_others(&named)?;
        drop(copy);
        let file = File::open(&self.target).and_then(|file| file.sync_all());
        file.map_err(SqliteError::io(&self.target))?;
        sync_parent(&self.target)
    }

    /// Copies the first `length` bytes of a body, except for those that were copied before. Returns
    /// `false` if there is no such body.
    fn copy_body(&self, name: &str, length: u64) -> Result<bool, SqliteError> {
        let (from, to) = (self.from.file(name), self.to.file(name));
        let copied = fs::metadata(&to).ok().map(|copy| copy.len());
        if copied.is_some_and(|copied| copied >= length) {
            return Ok(true);
        }
        if let Some(directory) = to.parent() {
            create_directory(directory)?;
        }
        let copied = File::open(&from).and_then(|mut from| {
            let mut copy = match copied {
                Some(_) => File::options().append(true).open(&to)?,
                None => create_file(&to)?,
            };
            let copied = copied.unwrap_or(0);
            from.seek(SeekFrom::Start(copied))?;
            io::copy(&mut from.take(length - copied), &mut copy)?;
            copy.sync_all()
        });
        match copied {
            Ok(()) => {
                sync_parent(&to)?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(SqliteError::io(from)(error)),
        }
    }

    /// Removes copies of bodies that the copy of the file does not name.
    fn remove_others(&self, named: &[(String, u64)]) -> Result<(), SqliteError> {
        for process in self
            .to
            .processes()
            .map_err(SqliteError::io(self.to.path()))?
        {
            let directory = self.to.file(&process);
            let entries = fs::read_dir(&directory).map_err(SqliteError::io(&directory))?;
            for entry in entries.flatten() {
                let name = format!("{process}/{}", entry.file_name().to_string_lossy());
                if named
                    .binary_search_by(|(named, _)| named.cmp(&name))
                    .is_err()
                {
                    self.to.remove(&name);
                }
            }
        }
        Ok(())
    }
}

/// Returns the names of the files that rows name, and the bytes of them that belong to rows.
fn named_files(connection: &Connection) -> Result<Vec<(String, u64)>, SqliteError> {
    let mut statement = connection.prepare(
        "SELECT file, length FROM request WHERE file IS NOT NULL \
         UNION SELECT file, length - file_start FROM response WHERE file IS NOT NULL",
    )?;
    let names = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(names.collect::<Result<_, _>>()?)
}

/// Removes a job without its body, which the source has removed while the copy was made. Of an
/// unfinished job that has its request, only the output is removed.
///
/// If the copy has no end of the job, nothing would remove its key either: a repeat would get 410
/// for ever.
fn forget_body(copy: &Connection, file: &str) -> Result<(), SqliteError> {
    let output = "SELECT job FROM response JOIN job ON job.seq = response.job \
         WHERE file = ?1 AND finished_at IS NULL";
    let output: Option<i64> = copy
        .query_row(output, [file], |row| row.get(0))
        .optional()?;
    if let Some(seq) = output {
        copy.execute("DELETE FROM response WHERE job = ?1", [seq])?;
        copy.execute("DELETE FROM part WHERE job = ?1", [seq])?;
        return Ok(());
    }
    let job = "SELECT job FROM request WHERE file = ?1 \
         UNION SELECT job FROM response WHERE file = ?1";
    let seq: Option<i64> = copy.query_row(job, [file], |row| row.get(0)).optional()?;
    let Some(seq) = seq else {
        // The loop has removed it for another missing body.
        return Ok(());
    };
    for delete in [
        "DELETE FROM idempotency_key WHERE (key, job) IN \
         (SELECT key, id FROM job WHERE seq = ?1 AND finished_at IS NULL)",
        "DELETE FROM job WHERE seq = ?1",
        "DELETE FROM request WHERE job = ?1",
        "DELETE FROM response WHERE job = ?1",
        "DELETE FROM part WHERE job = ?1",
    ] {
        copy.execute(delete, [seq])?;
    }
    Ok(())
}

/// Computes the totals from the rows.
fn count_again(copy: &Connection) -> Result<(), SqliteError> {
    copy.execute_batch(
        "UPDATE totals SET \
         unfinished = (SELECT count(*) FROM job WHERE finished_at IS NULL), \
         keys = (SELECT count(*) FROM idempotency_key), \
         file_bytes = (SELECT coalesce(sum(length), 0) FROM \
         (SELECT length FROM request WHERE file IS NOT NULL \
         UNION ALL SELECT length - file_start FROM response WHERE file IS NOT NULL))",
    )?;
    Ok(())
}
